"""Measures what it costs to read a prepared split by ranges from a bucket, beside its copy: `python -m benchmarks.bucket_input`.

The bucket is the stand-in for Cloud Storage of the tests, which answers each request after a stated latency. It runs on the same
machine and takes a part of its cores, so the images/s are those of this machine, beside a bucket that costs CPU time. The CPU
times do not include the stand-in. The pipelines are those of train.py, with processes that decode, and take turns.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from ml_collections import ConfigDict

from benchmarks.peers.process import ROOT, START
from mixer_jax import app
from mixer_jax.bench.photographs import write_photographs
from mixer_jax.bench.pipelines import ROUND_SECONDS, ROUNDS, our_measure, without_randaugment
from mixer_jax.bench.speed import BATCH
from mixer_jax.config import dataset
from mixer_jax.data.sources.local_copy import NO_COPY
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.records import Progress
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded
from mixer_jax.worker_process import WorkerProcess

SOURCE = "records:gs://bucket/data"
SHARD_IMAGES = 256
TIMEOUT_SECONDS = 60  # The limit for one answer of the stand-in.


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bucket_input", description=__doc__)
    parser.add_argument("--config", default="configs/pretrain_imagenet.py:B/16", help="FILE.py or FILE.py:ARG, as in train.py")
    parser.add_argument("--latency", type=bounded("in [0, 10^4]", float), default=30.0, help="of each request, milliseconds")
    parser.add_argument("--images", type=bounded("in [1, 2^20]"), default=1024, help="number of photographs in the split")
    parser.add_argument("--rounds", type=bounded("in [1, 2^10]"), default=ROUNDS, help="how often each pipeline is measured")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.set_defaults(tool=measure)
    return parser


def measure(arguments: argparse.Namespace) -> None:
    """Print the figures of all pipelines."""
    config = app.read_config(arguments.config, arguments.overrides)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_photographs(Path(folder, "images"), arguments.images)
        spec = PreparationSpec(f"folder:{folder}/images", "train", records_per_shard=SHARD_IMAGES)
        manifest = prepare(spec, Path(folder, "bucket/data"), os.cpu_count())
        count_requests = stack.enter_context(serve_bucket(Path(folder, "bucket"), arguments.latency))
        figures = benchmark_bucket(config, str(Path(folder, "copy")), count_requests, arguments.rounds)
    size = sum(shard.bytes for shard in manifest.shards) / arguments.images
    facts = {"latency_ms": arguments.latency, "images": arguments.images, "kilobytes_per_image": round(size / 1000, 1)}
    print_figures(facts | {"pipelines": figures}, arguments.json)


@contextlib.contextmanager
def serve_bucket(folder: Path, latency: float) -> Iterator[Callable[[], int]]:
    """Serve a folder as a bucket to this process and its children, and yield a function that returns the number of requests."""
    command = [sys.executable, "-m", "benchmarks.peers.cloud_storage", str(folder), str(latency)]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    with contextlib.closing(WorkerProcess(command, {"PYTHONPATH": path}, TIMEOUT_SECONDS)) as worker:
        os.environ.update(worker.ask(START))
        yield lambda: worker.ask("requests")


def benchmark_bucket(
    config: ConfigDict, copy: str, count_requests: Callable[[], int], rounds: int
) -> dict[str, dict[str, float]]:
    """Return {pipeline: its figures}.

    Args:
        config: The config of a run. Its crop, model and image size are measured.
        copy: The folder for the copy.
        count_requests: Returns the number of requests that the bucket has had.
        rounds: How often each pipeline is measured. The figures are medians.
    """
    cores = len(os.sched_getaffinity(0))
    sources, requests = {}, {}
    for name, local_copy in (("copy", copy), ("ranges", NO_COPY)):
        before = count_requests()
        sources[name] = open_source(dataset(SOURCE, local_copy=local_copy))
        _read_once(sources[name], config)
        requests[name] = (count_requests() - before) / len(sources[name])
    workers = {"copy": (cores,), "ranges": (cores, 2 * cores)}
    measures = {(name, count): our_measure(source, config) for name, source in sources.items() for count in workers[name]}
    speeds = {key: [] for key in measures}
    augment, progress = without_randaugment(config.augment), Progress(rounds * len(measures), 0, "measurement")
    for done, key in enumerate(list(measures) * rounds, 1):
        speeds[key].append(measures[key](augment, key[1], ROUND_SECONDS))
        progress.update(done)
    progress.close()
    return {
        f"{name}, {count} workers": {
            "images_per_sec": round(median(speed["images_per_sec"] for speed in speeds[name, count]), 1),
            "cpu_ms_per_image": round(median(1e3 / speed["images_per_cpu_sec"] for speed in speeds[name, count]), 3),
            "requests_per_image": round(requests[name], 4),
        }
        for name, count in measures
    }


def _read_once(source: Source, config: ConfigDict) -> None:
    """Read every record once, as an evaluation does."""
    indices = np.arange(BATCH)
    for _ in eval_batches(source, lambda image, _: image[:1, :1], config.loader, batch_size=BATCH, batch_indices=indices):
        pass


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
