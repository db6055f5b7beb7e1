"""Measures what a data set of any size costs the host to open and to read: `python -m benchmarks.memory`.

The benchmark makes a split of any number of images: one real shard of small images, hard-linked under the names of all shards,
with a correct manifest. Everything that depends on the number of records or shards is as in a real split. Only the bytes on the
disk are few, so the speed is that of a disk that nobody waits for. Each figure is measured in a new process.
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

from benchmarks.peers.process import ROOT
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

IMAGE_SIZE = 16  # Pixels. Images are so small that batches are a negligible part of the memory.
BATCH_SIZE = 256


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    number, seconds = bounded("in [1, 2^32)"), bounded("in (0, 10^6]", float)
    numbers = {
        "type": number,
        "nargs": "+",
        "metavar": "N",
        "default": [14_197_122, 300_000_000],
    }  # As many as ImageNet-21k, JFT-300M.
    parser.add_argument("--records", **numbers, help="number of images of each data set")
    parser.add_argument("--seconds", type=seconds, default=15, help="how long to read from each data set")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each data set instead of tables")
    parser.set_defaults(tool=measure_all)
    return parser


def measure_all(arguments: argparse.Namespace) -> None:
    """Print the figures for every size."""
    for records in arguments.records:
        print_figures(benchmark_memory(records, arguments.seconds), arguments.json)


def benchmark_memory(records: int, seconds: float, records_per_shard: int = PreparationSpec.records_per_shard) -> dict:
    """Return the start-up time, resident memory and images/s with a split of `records` images.

    The split is opened by its receipts and read for `seconds`. The start-up time is also measured with verify=ends, which hashes
    the ends of all shards.
    """
    with tempfile.TemporaryDirectory() as folder:
        shards = run_in_fresh_process(folder, make_split, Path(folder), records, records_per_shard)
        figures = run_in_fresh_process(folder, measure, Path(folder), "full", seconds)
        ends = run_in_fresh_process(folder, measure, Path(folder), "ends", 0.0)
    return {"records": records, "shards": shards} | figures | {"start_up_seconds_hashing_ends": ends["start_up_seconds"]}


def make_split(folder: Path, records: int, records_per_shard: int) -> int:
    """Make the split folder/train with its receipts, and return how many shards it has."""
    (folder / "train").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    encoded = [cv2.imencode(".jpg", image)[1].tobytes() for image in pixels]
    images = [(f"{i}.jpg", (i % 10,), encoded[i % 64]) for i in range(records_per_shard)]
    count = -(-records // records_per_shard)
    shards, first, facts = [], None, ()
    for number in range(count):
        file = folder / "train" / shard_name("train", number, count)
        num_records = min(records_per_shard, records - number * records_per_shard)  # The last shard may have fewer.
        if first is None or num_records < records_per_shard or not _link(first, file):
            write_shard(file, images[:num_records])
            first, facts = file, (file.stat().st_size, num_records, sha256(file), ends_sha256(file), 0, [])
        shards.append(Shard(file.name, *facts)._asdict())
    counts = {"records": records, "left_out": 0, "reencoded": 0, "max_labels": 1, "classes": 10}
    names = {"class_names": [str(i) for i in range(10)], "images_of_class": [0] * 10, "made": {"command": "benchmarks.memory"}}
    write_json(folder / "train" / MANIFEST, {"format": FORMAT, "split": "train", "shards": shards} | counts | names)
    manifest = Manifest(folder / "train")
    manifest.write_receipts({shard.name: stamp_of(folder / "train" / shard.name) for shard in manifest.shards})
    return count


def _link(file: Path, name: Path) -> bool:
    """Hard-link `file` as `name`. Return False if the file has as many names as its file system allows."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        return False
    return True


def measure(folder: Path, verify: str, seconds: float) -> dict:
    """Open the split in `folder`, read training batches for `seconds`, and return the figures of this process and its workers."""
    config = default_config()
    config.update(image_size=IMAGE_SIZE, batch_size=BATCH_SIZE, data=dataset(f"records:{folder}", verify=verify))
    _pose_as_train()
    before, start = resident_bytes(), time.perf_counter()
    source = open_source(config.data)
    start_up, opened = time.perf_counter() - start, resident_bytes()
    batches = train_batches(
        source, train_transform(config.augment, IMAGE_SIZE, host_transform(config.model)), config.loader, seed=config.seed,
        batch_size=BATCH_SIZE, batch_indices=np.arange(BATCH_SIZE), steps=range(10**6), unreadable=UnreadableImages(),
    )  # fmt: skip
    images_read, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        next(batches)
        images_read += BATCH_SIZE
    workers = sum(proportional_bytes(child.pid) for child in multiprocessing.active_children())
    mib = {"before": before, "opened": opened, "after_reading": resident_bytes(), "peak": resident_bytes("VmHWM")}
    mib |= {"workers": workers}
    return {
        "start_up_seconds": round(start_up, 3),
        "resident_mib": {name: count >> 20 for name, count in mib.items()},
        "budget_mib": (before + sum(input_bytes(config, 1.0, [source]).values())) >> 20,
        "images_read": images_read,
        "images_per_sec": round(images_read / (time.perf_counter() - start), 1),
    }


def _pose_as_train() -> None:
    """Make worker processes start as those of train.py do, which share its imports. Otherwise each would import JAX itself."""
    program = sys.modules["__main__"]
    program.__spec__, program.__file__ = None, str(ROOT / "train.py")


def proportional_bytes(process: int) -> int:
    """Return the memory of a process, including its part of memory that it shares. Return 0 if the system does not report it."""
    file = Path(f"/proc/{process}/smaps_rollup")
    return int(file.read_text().split("\nPss:")[1].split()[0]) * 1024 if file.exists() else 0


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
