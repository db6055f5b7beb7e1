"""Measures the speed of whole input pipelines, ours and others', on the same images. input.py measures the stages of ours.

Pipelines that are compared take turns, so that other programs on the machine disturb all of them alike.
"""

from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.bench.speed import BATCH, measure
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.loader import HostBatch, train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.models.registry import host_transform
from mixer_jax.records import Progress

ROUNDS = 5
ROUND_SECONDS = 2.0  # For each pipeline in a round.

Measure = Callable[[ConfigDict, int, float], dict[str, float]]
"""A function of (config.augment, cores, seconds) that returns the speed of a pipeline, as speed.measure does."""


def measure_of(make_batches: Callable[[ConfigDict, int], Iterator]) -> Measure:
    """Return a function that measures the batches that `make_batches(config.augment, cores)` makes.

    It makes each pipeline when that is first measured, and keeps it for later measurements.
    """
    pipelines: dict[tuple[str, int], Iterator] = {}

    def measure_pipeline(augment: ConfigDict, cores: int, seconds: float) -> dict[str, float]:
        key = augment.to_json(), cores
        if key not in pipelines:
            pipelines[key] = make_batches(augment, cores)
        return measure(pipelines[key], seconds, cores)

    return measure_pipeline


def our_measure(source: Source, config: ConfigDict) -> Measure:
    """Return a function that measures the stream of batches that train.py reads from `source`."""

    def make_batches(augment: ConfigDict, cores: int) -> Iterator[HostBatch]:
        loader = config.loader.copy_and_resolve_references()
        loader.update(workers=cores, prefetch=2 * BATCH)
        return train_batches(
            source, train_transform(augment, config.image_size, host_transform(config.model)), loader, seed=config.seed,
            batch_size=BATCH, batch_indices=np.arange(BATCH), steps=range(10**6), unreadable=UnreadableImages(),
        )  # fmt: skip

    return measure_of(make_batches)


def pipeline_speeds(augment: ConfigDict, measures: dict[str, Measure], cores: int) -> dict[str, dict[str, dict]]:
    """Return {augmentation: {name of a measure: speed}}. Speeds are medians over ROUNDS.

    The augmentations are `augment` without RandAugment and, if `augment` has RandAugment, also with it. A speed has

        images_per_cpu_sec  by CPU time, on one core
        images_per_sec      by the clock, {"1": on one core, str(cores): on all}, with one worker for each core
        speed_up            by the clock, on all cores over one core
    """
    crop = "crop + flip" if augment.flip else "crop"
    augmentations = {crop: without_randaugment(augment)}
    if augment.randaugment_layers:
        augmentations[f"{crop} + RandAugment"] = augment
    core_counts = sorted({1, cores})
    keys = [(augmentation, count, name) for augmentation in augmentations for count in core_counts for name in measures]
    measured = {key: [] for key in keys}
    progress = Progress(ROUNDS * len(keys), 0, "measurement")
    for done, (augmentation, count, name) in enumerate(keys * ROUNDS, 1):
        measured[augmentation, count, name].append(measures[name](augmentations[augmentation], count, ROUND_SECONDS))
        progress.update(done, f"{augmentation}, {name}, {count} core{'s' * (count > 1)}")
    progress.close()

    def median_of(figure: str, *key) -> float:
        return round(median(speed[figure] for speed in measured[key]), 1)

    def speed(augmentation: str, name: str) -> dict:
        by_clock = {str(count): median_of("images_per_sec", augmentation, count, name) for count in core_counts}
        return {
            "images_per_cpu_sec": median_of("images_per_cpu_sec", augmentation, 1, name),
            "images_per_sec": by_clock,
            "speed_up": round(by_clock[str(cores)] / by_clock["1"], 2),
        }

    return {augmentation: {name: speed(augmentation, name) for name in measures} for augmentation in augmentations}


def ratios(speeds: dict[str, dict]) -> dict[str, float]:
    """Return, for each other pipeline, how many times as fast ours is in CPU time, on one core."""
    ours, *others = speeds
    return {other: round(speeds[ours]["images_per_cpu_sec"] / speeds[other]["images_per_cpu_sec"], 3) for other in others}


def clock_ratios(speeds: dict[str, dict]) -> dict[str, float]:
    """Return, for each other pipeline, how many times as fast ours is by the clock, on all cores."""
    all_cores = {name: list(speed["images_per_sec"].values())[-1] for name, speed in speeds.items()}
    ours, *others = speeds
    return {other: round(all_cores[ours] / all_cores[other], 3) for other in others}


def without_randaugment(augment: ConfigDict) -> ConfigDict:
    """Return a copy of config.augment in which RandAugment is off."""
    changed = augment.copy_and_resolve_references()
    changed.randaugment_layers = 0
    return changed
