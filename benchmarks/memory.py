"""What a data set of any size costs the host to open and to read from: `python -m benchmarks.memory`.

A split is made of as many images as asked for: one real shard of small ones, linked under the names of all shards, with a true
manifest. Whatever depends on the number of records or shards is as in a real split; only the bytes on the disk are few, so that
speed here is that of a disk which is never waited for. Each figure is of a process of its own.
"""

import argparse
import errno
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from mixer_jax import app
from mixer_jax.bench.fresh_process import run_in_fresh_process
from mixer_jax.config import dataset, default_config
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.manifest import FORMAT, MANIFEST, Manifest, Shard, ends_sha256, sha256, shard_name
from mixer_jax.data.sources.receipts import stamp_of
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.shards import write_shard
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.models.registry import host_transform
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.storage import write_json
from mixer_jax.text_table import print_figures
from mixer_jax.training.memory import input_bytes, resident_bytes
from mixer_jax.validation import bounded

IMAGE_SIZE = 16  # pixels, so that what is seen to grow is not the batches
BATCH_SIZE = 256


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    number, seconds = bounded("in [1, 2^32)"), bounded("in (0, 10^6]", float)
    numbers = {"type": number, "nargs": "+", "metavar": "N", "default": [14_197_122, 300_000_000]}  # ImageNet-21k, JFT-300M
    parser.add_argument("--records", **numbers, help="how many images each data set has")
    parser.add_argument("--seconds", type=seconds, default=15, help="to read from each")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each, for programs")
    parser.set_defaults(tool=measure_all)
    return parser


def measure_all(arguments: argparse.Namespace) -> None:
    """Print the figures of every size."""
    for records in arguments.records:
        print_figures(benchmark_memory(records, arguments.seconds), arguments.json)


def benchmark_memory(records: int, seconds: float, records_per_shard: int = PreparationSpec.records_per_shard) -> dict:
    """Return start-up, resident size and images/s with a split of `records`.

    It is opened by its receipts, and read for `seconds`; start-up is also measured when the ends of all shards are hashed.
    """
    with tempfile.TemporaryDirectory() as folder:
        shards = run_in_fresh_process(folder, make_split, Path(folder), records, records_per_shard)
        figures = run_in_fresh_process(folder, measure, Path(folder), "full", seconds)
        ends = run_in_fresh_process(folder, measure, Path(folder), "ends", 0.0)
    return {"records": records, "shards": shards} | figures | {"start_up_seconds_hashing_ends": ends["start_up_seconds"]}


def make_split(folder: Path, records: int, records_per_shard: int) -> int:
    """Make folder/train with its receipts, and return how many shards it has."""
    (folder / "train").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    encoded = [cv2.imencode(".jpg", image)[1].tobytes() for image in pixels]
    images = [(f"{i}.jpg", (i % 10,), encoded[i % 64]) for i in range(records_per_shard)]
    count = -(-records // records_per_shard)
    shards, first, facts = [], None, ()
    for number in range(count):
        file = folder / "train" / shard_name("train", number, count)
        held = min(records_per_shard, records - number * records_per_shard)  # the last may have fewer
        if first is None or held < records_per_shard or not _link(first, file):
            write_shard(file, images[:held])
            first, facts = file, (file.stat().st_size, held, sha256(file), ends_sha256(file), 0, [])
        shards.append(Shard(file.name, *facts)._asdict())
    counts = {"records": records, "left_out": 0, "reencoded": 0, "max_labels": 1, "classes": 10}
    names = {"class_names": [str(i) for i in range(10)], "images_of_class": [0] * 10, "made": {"command": "benchmarks.memory"}}
    write_json(folder / "train" / MANIFEST, {"format": FORMAT, "split": "train", "shards": shards} | counts | names)
    manifest = Manifest(folder / "train")
    manifest.write_receipts({shard.name: stamp_of(folder / "train" / shard.name) for shard in manifest.shards})
    return count


def _link(file: Path, name: Path) -> bool:
    """Give the file another name, and return whether that was possible: a file system has a limit of names for one file."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        return False
    return True


def measure(folder: Path, verify: str, seconds: float) -> dict:
    """Return the figures of this process and its workers, which open folder's split and read training batches for `seconds`."""
    config = default_config()
    config.update(image_size=IMAGE_SIZE, batch_size=BATCH_SIZE, data=dataset(f"records:{folder}", verify=verify))
    before, start = resident_bytes(), time.perf_counter()
    source = open_source(config.data)
    start_up, opened = time.perf_counter() - start, resident_bytes()
    batches = train_batches(
        source, train_transform(config.augment, IMAGE_SIZE, host_transform(config.model)), config.loader, seed=config.seed,
        batch_size=BATCH_SIZE, batch_indices=np.arange(BATCH_SIZE), steps=range(10**6), unreadable=UnreadableImages(),
    )  # fmt: skip
    done, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        next(batches)
        done += BATCH_SIZE
    workers = sum(proportional_bytes(child.pid) for child in multiprocessing.active_children())
    mib = {"before": before, "opened": opened, "after_reading": resident_bytes(), "peak": resident_bytes("VmHWM")}
    mib |= {"workers": workers}
    return {
        "start_up_seconds": round(start_up, 3),
        "resident_mib": {name: count >> 20 for name, count in mib.items()},
        "budget_mib": (before + sum(input_bytes(config, 1.0, [source]).values())) >> 20,
        "images_read": done,
        "images_per_sec": round(done / (time.perf_counter() - start), 1),
    }


def proportional_bytes(process: int) -> int:
    """Return the memory of a process, with its part of what it shares with others. 0 where Linux does not tell."""
    file = Path(f"/proc/{process}/smaps_rollup")
    return int(file.read_text().split("\nPss:")[1].split()[0]) * 1024 if file.exists() else 0


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
