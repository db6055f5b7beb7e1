"""Measures whether this host feeds a model fast enough and, if not, which stage is to blame: `python -m mixer_jax bench input`.

Stages are timed one after the other in one thread, in CPU time, on the same images. So their times can be added and compared,
even if the machine runs other programs too. The CPU time of the whole pipeline beyond its stages is counted as "workers and
buffers". The whole pipeline is also timed by the clock, on one core and on all, beside Grain's workers on the same examples
(pipelines.py, grain_pipeline.py).
"""

import os
import time
from collections.abc import Callable
from statistics import mean, median

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import parallel
from mixer_jax.accelerators import PEAK_FLOPS_PER_SEC
from mixer_jax.bench.grain_pipeline import grain_measure
from mixer_jax.bench.pipelines import Measure, clock_ratios, our_measure, pipeline_speeds, ratios
from mixer_jax.bucket import requests_sent
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.source import Record, Source, prefetch
from mixer_jax.data.stream.loader import EXAMPLES_PER_TASK
from mixer_jax.errors import UserError
from mixer_jax.models.registry import host_transform, make_model
from mixer_jax.text_table import format_table

WARM_UP = 8  # The number of images at the start of each stage that are not counted.
BACKWARD = 2  # A backward pass costs about twice as many operations as the forward pass.
UTILIZATION = 0.4  # The assumed share of a device's peak that a training step reaches. The figures say that it is an estimate.


def benchmark_input(
    config: ConfigDict, source: Source, num_images: int, device: str, devices: int, others: dict[str, Measure]
) -> dict:
    """Return the time of each stage, the speed of the whole pipeline beside others, the speed that is needed, and a verdict.

    Args:
        config: The config of a run. Its crop, augmentation, model and image size are measured.
        source: The images.
        num_images: How many images are timed in each stage.
        device: The kind of device that the host feeds, a name in accelerators.PEAK_FLOPS_PER_SEC.
        devices: How many of these the host feeds.
        others: Pipelines of other projects by name, beside Grain's.

    Raises UserError for an unknown `device`.
    """
    if device not in PEAK_FLOPS_PER_SEC:
        raise UserError(f"--device={device}: choose one of {', '.join(PEAK_FLOPS_PER_SEC)}.")
    cores = len(os.sched_getaffinity(0))
    measures = {"ours": our_measure(source, config), "grain": grain_measure(source, config)} | others
    pipelines = pipeline_speeds(config.augment, measures, cores)
    requests = requests_per_image(source, num_images)
    seconds = stage_seconds(source, config, num_images)
    pipeline_seconds = 1 / list(pipelines.values())[-1]["ours"]["images_per_cpu_sec"]
    # The measured pipelines end before the device.
    remaining_seconds = pipeline_seconds - sum(seconds.values()) + seconds["to device"]
    seconds |= {"workers and buffers": remaining_seconds} if remaining_seconds > 0 else {}
    wanted = wanted_images_per_sec(config, device, devices)
    return {
        "image_size": config.image_size,
        "cores": cores,
        "stage_cpu_ms_per_image": {stage: round(1e3 * value, 6) for stage, value in seconds.items()},
        "pipelines": pipelines,
        "ours_over_others": {augmentation: ratios(speeds) for augmentation, speeds in pipelines.items()},
        "ours_over_others_by_clock": {augmentation: clock_ratios(speeds) for augmentation, speeds in pipelines.items()},
        "bucket_requests_per_image": round(requests, 4),
        "wanted_images_per_sec": round(wanted, 1),
        "wanted_is_an_estimate": f"{devices} x {device} at {UTILIZATION:.0%} of peak",
        "verdict": verdict(seconds, wanted, cores, config.model.variant, f"{devices} x {device}"),
    }


def format_benchmark(figures: dict) -> str:
    """Return the figures that `benchmark_input` returned as text for people."""
    stages = figures["stage_cpu_ms_per_image"]
    total = sum(stages.values())
    rows = [("stage", "images/CPU-s", "CPU ms/image", "share")]
    rows += [(stage, f"{1e3 / ms:.0f}", f"{ms:.3f}", f"{ms / total:.0%}") for stage, ms in (stages | {"all": total}).items()]
    parts = [format_table(rows), *(_format_pipelines(figures, name) for name in figures["pipelines"])]
    if requests := figures["bucket_requests_per_image"]:
        parts.append(f"Reading takes {requests:.2f} requests to the bucket for an image.")
    return "\n\n".join([*parts, figures["verdict"]])


def _format_pipelines(figures: dict, augmentation: str) -> str:
    """Return the table of the speeds of all pipelines with one augmentation."""
    speeds = figures["pipelines"][augmentation]
    ratio_tables = [figures[key][augmentation] for key in ("ours_over_others", "ours_over_others_by_clock")]
    counts = list(speeds["ours"]["images_per_sec"])
    clocks = [f"images/s, {count} core{'s' * (count != '1')}" for count in counts]
    rows = [(augmentation, "images/CPU-s", *clocks, "speed-up", "ours by CPU time", "by the clock")]
    for name, speed in speeds.items():
        ratio = [f"{by_name[name]:.2f}" for by_name in ratio_tables if name in by_name]
        by_clock = (f"{value:.0f}" for value in speed["images_per_sec"].values())
        rows.append((name, f"{speed['images_per_cpu_sec']:.0f}", *by_clock, f"{speed['speed_up']:.2f}", *ratio))
    return format_table(rows)


def requests_per_image(source: Source, num_images: int) -> float:
    """Return the number of requests to a bucket for an image, if images are read in random order by the tasks of one worker."""
    indices = np.random.default_rng(0).integers(len(source), size=num_images).tolist()
    before = requests_sent()
    for start in range(0, num_images, EXAMPLES_PER_TASK):
        task = indices[start : start + EXAMPLES_PER_TASK]
        prefetch(source, task)
        for index in task:
            source[index]
    return (requests_sent() - before) / num_images


def stage_seconds(source: Source, config: ConfigDict, num_images: int) -> dict[str, float]:
    """Return the CPU seconds for one image of each stage, in the order of the pipeline, without stages that take no time.

    The time of an augmentation is that of the transform with it minus that of the transform without it. If the last record is one
    that can be decoded partially, "decode" is the time of partial decoding and crop together minus that of the crop.
    """
    options = {"crop and resize": {"flip": False, "randaugment_layers": 0}, "flip": {"randaugment_layers": 0}, "RandAugment": {}}
    transforms = {}
    for stage, changes in options.items():
        augment = config.augment.copy_and_resolve_references()
        augment.update(changes)
        transforms[stage] = train_transform(augment, config.image_size)
    crop, max_pixels, to_patches = transforms["crop and resize"], config.loader.max_pixels, host_transform(config.model)
    times = {stage: [] for stage in ("read", "decode", "partial decode and crop", *transforms, "patchify")}

    def timed(stage: str, function: Callable, *arguments):
        start = time.process_time()
        result = function(*arguments)
        times[stage].append(time.process_time() - start)
        return result

    def crop_partially_decoded(record: Record, rng: np.random.Generator) -> np.ndarray:
        return crop(record.decode_for_crop(max_pixels).image, rng)

    for i in (*range(WARM_UP), *range(num_images)):
        record = timed("read", source.__getitem__, i % len(source))
        image = timed("decode", lambda record: record.decode(max_pixels, strict=True).image, record)
        if record.partially_decodable:
            timed("partial decode and crop", crop_partially_decoded, record, np.random.default_rng(i))
        for stage, transform in list(transforms.items())[:: (-1) ** i]:  # The order alternates: later ones find the image cached.
            rng = np.random.default_rng(i)
            result = timed(stage, lambda *inputs, function=transform: np.ascontiguousarray(function(*inputs)), image, rng)
        result = timed("patchify", to_patches, result)
    seconds = {stage: median(stage_times[WARM_UP:] or [0]) for stage, stage_times in times.items()}
    if decode_and_crop := seconds.pop("partial decode and crop"):
        seconds["decode"] = decode_and_crop - seconds["crop and resize"]
    # Augmentations are compared by means: only every other image is flipped, and RandAugment's operations differ in cost.
    means = {stage: mean(times[stage][WARM_UP:]) for stage in transforms}
    seconds["flip"] = means["flip"] - means["crop and resize"]
    seconds["RandAugment"] = means["RandAugment"] - means["flip"]
    if not isinstance(record.image, bytes):
        del seconds["decode"]
    return {stage: value for stage, value in (seconds | _batch_seconds(config, result)).items() if value > 0}


def _batch_seconds(config: ConfigDict, image: np.ndarray) -> dict[str, float]:
    """Return the CPU seconds for one image of stacking a batch and of copying it to a device."""
    images = [image] * min(config.batch_size, 256)
    mesh = parallel.make_mesh(1, jax.local_devices()[:1])
    stacked = np.stack(images)

    def to_device() -> None:
        jax.block_until_ready(parallel.to_global({"image": stacked}, mesh))

    return {
        "batch": median([_cpu_seconds(np.stack, images) for _ in range(9)]) / len(images),
        "to device": median([_cpu_seconds(to_device) for _ in range(9)]) / len(images),
    }


def wanted_images_per_sec(config: ConfigDict, device: str, devices: int) -> float:
    """Return the images/s that a host must supply to `devices` devices, on which the config's model is trained.

        devices * UTILIZATION * peak operations/s / (operations of the forward pass for one image * (1 + BACKWARD))

    The compiler counts the operations of the forward pass.
    """
    shape = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    model = make_model(config.model, config.num_classes)
    params = jax.eval_shape(model.init, jax.random.key(0), shape)
    operations = jax.jit(model.apply).lower(params, shape).cost_analysis()["flops"] * (1 + BACKWARD)
    return devices * UTILIZATION * PEAK_FLOPS_PER_SEC[device] / operations


def verdict(seconds: dict[str, float], wanted: float, cores: int, model: str, devices: str) -> str:
    """Return one sentence that says whether the host is fast enough and, if not, which stage is to blame.

    Args:
        seconds: CPU seconds for one image by stage.
        wanted: The images/s that the devices need.
        cores: The number of cores of this host.
        model: The name of the model, for the sentence.
        devices: The number and kind of the devices, for the sentence.
    """
    needed = wanted * sum(seconds.values())  # Cores.
    if needed <= cores:
        return (
            f"Fast enough: {devices} training {model} take {wanted:.0f} images/s, for which {needed:.1f} of {cores} cores are "
            "enough."
        )
    slowest = max(seconds, key=seconds.get)
    share = seconds[slowest] / sum(seconds.values())
    return (
        f"Not fast enough: {devices} training {model} take {wanted:.0f} images/s, which needs {needed:.0f} cores like these, and "
        f"there are {cores}; {share:.0%} of their time goes to: {slowest}."
    )


def _cpu_seconds(function: Callable, *arguments) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start
