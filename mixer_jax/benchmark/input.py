"""Whether this host feeds a model fast enough, and if not, which stage is to blame: `python -m mixer_jax bench input`.

Stages are timed one after the other in one thread, in CPU time, on the same images, so that they can be added and compared on a
machine that does other things too. The whole pipeline is timed by the clock, with one thread and with one for each core.
"""

import functools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import simplejpeg
from ml_collections import ConfigDict

from mixer_jax import parallel
from mixer_jax.config import UserError, validate
from mixer_jax.data import images
from mixer_jax.data.augment import inception_crop, train_transform
from mixer_jax.data.bad_records import BadRecords, decode
from mixer_jax.data.loader import train_batches
from mixer_jax.data.sources import Source, open_source
from mixer_jax.models.registry import make_model

PIPELINE_SECONDS = 5.0
BACKWARD = 2  # a backward pass costs about twice the forward one
UTILISATION = 0.4  # of a chip's peak, that a training step is taken to reach: an estimate, and the figures say so


def benchmark_input(config: ConfigDict, num_images: int, device: str, devices: int) -> dict:
    """Images a CPU-second of each stage, images/s of the whole with one thread and all cores, and what `devices` would take.

    `device` is a name of parallel.PEAK_FLOPS_PER_SEC; a host is judged that feeds `devices` of them. Raises UserError for
    another, and as the source does.
    """
    if device not in parallel.PEAK_FLOPS_PER_SEC:
        raise UserError(f"--device={device}: choose one of {', '.join(parallel.PEAK_FLOPS_PER_SEC)}.")
    validate(config)
    source = open_source(config.data)
    cores = len(os.sched_getaffinity(0))
    seconds = stage_seconds(source, config, num_images)
    wanted = wanted_images_per_sec(config, device, devices)
    one, all_cores = (_pipeline_images_per_sec(source, config, threads) for threads in (1, cores))
    figures = {
        "source": config.data.source,
        "image_size": config.image_size,
        "cores": cores,
        "stage_images_per_cpu_sec": {stage: round(1 / max(each, 1e-9), 1) for stage, each in seconds.items()},
        "cpu_ms_per_image": round(1e3 * sum(seconds.values()), 3),
        "pipeline_images_per_sec": {"1 thread": round(one, 1), f"{cores} threads": round(all_cores, 1)},
        "speed_up": round(all_cores / one, 2),
        "wanted_images_per_sec": round(wanted, 1),
        "wanted_is_an_estimate": f"{devices} x {device} at {UTILISATION:.0%} of peak",
    }
    return figures | {"verdict": verdict(seconds, wanted, cores, config.model.variant, f"{devices} x {device}")}


def stage_seconds(source: Source, config: ConfigDict, num_images: int) -> dict[str, float]:
    """CPU seconds an image of each stage, in order; a stage is what the pipeline takes with it less what it takes without."""
    records = [source[i % len(source)] for i in range(num_images)]
    decoded_record = functools.partial(decode, max_pixels=config.loader.max_pixels, strict=True)
    seconds = {"read": statistics.median([_cpu_seconds(source.__getitem__, i % len(source)) for i in range(num_images)])}
    if isinstance(records[0].image, bytes):
        seconds["decode"] = statistics.median([_cpu_seconds(decoded_record, record) for record in records])
    decoded = [decoded_record(record).image for record in records]

    before = 0.0
    for stage, options in {
        "crop and resize": {"flip": False, "randaugment_layers": 0},
        "flip": {"randaugment_layers": 0},
        "RandAugment": {},
    }.items():
        augment = config.augment.copy_and_resolve_references()
        augment.update(options)
        transform = train_transform(augment, config.image_size)

        def example(i: int, transform=transform) -> np.ndarray:
            return np.ascontiguousarray(transform(decoded[i], np.random.default_rng(i)))

        total = statistics.median([_cpu_seconds(example, i) for i in range(num_images)])
        seconds[stage], before = max(0.0, total - before), total
    return {stage: each for stage, each in (seconds | _batch_seconds(config, example(0))).items() if each > 0}


def _batch_seconds(config: ConfigDict, image: np.ndarray) -> dict[str, float]:
    rows = [image] * min(config.batch_size, 256)
    mesh = parallel.make_mesh(1, jax.local_devices()[:1])
    stacked = np.stack(rows)

    def to_device() -> None:
        jax.block_until_ready(parallel.to_global({"image": stacked}, mesh))

    return {
        "batch": statistics.median([_cpu_seconds(np.stack, rows) for _ in range(9)]) / len(rows),
        "to device": statistics.median([_cpu_seconds(to_device) for _ in range(9)]) / len(rows),
    }


def wanted_images_per_sec(config: ConfigDict, device: str, devices: int) -> float:
    """What training on `devices` takes, from the operations that the model's program has and UTILISATION of their peak."""
    shape = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    model = make_model(config.model, config.num_classes)
    params = jax.eval_shape(model.init, jax.random.key(0), shape)
    operations = jax.jit(model.apply).lower(params, shape).cost_analysis()["flops"] * (1 + BACKWARD)
    return devices * UTILISATION * parallel.PEAK_FLOPS_PER_SEC[device] / operations


def verdict(seconds: dict[str, float], wanted: float, cores: int, model: str, devices: str) -> str:
    """One sentence."""
    needed = wanted * sum(seconds.values())  # cores
    if needed <= cores:
        return f"Fast enough: {devices} training {model} take {wanted:.0f} images/s, for which {needed:.1f} of {cores} cores do."
    slowest = max(seconds, key=seconds.get)
    share = seconds[slowest] / sum(seconds.values())
    return (
        f"Not fast enough: {devices} training {model} take {wanted:.0f} images/s, which needs {needed:.0f} cores like these, and "
        f"there are {cores}; {share:.0%} of their time goes to: {slowest}."
    )


def _pipeline_images_per_sec(source: Source, config: ConfigDict, threads: int) -> float:
    """By the clock, over PIPELINE_SECONDS after the buffers have filled."""
    batch = 64
    batches = train_batches(
        source, train_transform(config.augment, config.image_size), seed=config.seed, batch_size=batch, rows=np.arange(batch),
        steps=range(10**6), threads=threads, prefetch=batch, bad=BadRecords(source, config.loader.max_pixels),
    )  # fmt: skip
    for _ in range(4):
        next(batches)
    done, start = 0, time.perf_counter()
    while time.perf_counter() < start + PIPELINE_SECONDS:
        next(batches)
        done += batch
    return done / (time.perf_counter() - start)


def write_photographs(folder: Path, count: int) -> None:
    """`count` JPEG files of 500 x 375 pixels at quality 92, ImageNet's usual size, cut from scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images  # heavy, and only this needs it

    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    for i in range(count):
        image = inception_crop(photographs[i % 2], rng, 0.5, 4 / 3, 4 / 3)
        encoded = simplejpeg.encode_jpeg(images.resize(image, 375, 500), quality=92, colorsubsampling="420")
        place = folder / f"class_{i % 2}" / f"{i}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded)


def _cpu_seconds(function: Callable, *arguments) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start
