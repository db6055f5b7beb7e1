"""The speed of whole input pipelines, ours and others', on the same images. Not here: that of their stages (input.py).

Those that are compared take turns, so that what else happens on the machine hits all of them.
"""

from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.bench.speed import BATCH, measure
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.loader import Batch, train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.models.registry import host_transform
from mixer_jax.records import Progress

ROUNDS = 5
ROUND_SECONDS = 2.0  # of every pipeline

Measure = Callable[[ConfigDict, int, float], dict[str, float]]
"""(config.augment, cores, seconds) -> what speed.measure returns."""


def our_measure(source: Source, config: ConfigDict) -> Measure:
    """Of the batches that training takes from `source`. Pipelines that were asked for stay, and wait for the next time."""
    pipelines: dict[tuple[str, int], Iterator[Batch]] = {}

    def ours(augment: ConfigDict, cores: int, seconds: float) -> dict[str, float]:
        key = augment.to_json(), cores
        if key not in pipelines:
            loader = config.loader.copy_and_resolve_references()
            loader.update(workers=cores, prefetch=2 * BATCH)
            pipelines[key] = train_batches(
                source, train_transform(augment, config.image_size, host_transform(config.model)), loader, seed=config.seed,
                batch_size=BATCH, batch_indices=np.arange(BATCH), steps=range(10**6), unreadable=UnreadableImages(),
            )  # fmt: skip
        return measure(pipelines[key], seconds, cores)

    return ours


def pipeline_speeds(augment: ConfigDict, measures: dict[str, Measure], cores: int) -> dict[str, dict[str, dict]]:
    """{pipeline: {whose: speed}}, medians over ROUNDS. The pipelines are `augment` without RandAugment and, if it has that, with.

    A speed has "images_per_cpu_sec", on one core, "images_per_sec", by the clock, on {"1", str(cores)} cores with as many
    workers, and "speed_up", the last over the first.
    """
    crop = "crop + flip" if augment.flip else "crop"
    pipelines = {crop: without_randaugment(augment)}
    if augment.randaugment_layers:
        pipelines[f"{crop} + RandAugment"] = augment
    numbers = sorted({1, cores})
    asked = [(name, count, whose) for name in pipelines for count in numbers for whose in measures]
    found = {each: [] for each in asked}
    progress = Progress(ROUNDS * len(asked), 0, "measurement")
    for done, (name, count, whose) in enumerate(asked * ROUNDS, 1):
        found[name, count, whose].append(measures[whose](pipelines[name], count, ROUND_SECONDS))
        progress.update(done, f"{name}, {whose}, {count} core{'s' * (count > 1)}")
    progress.close()

    def middle(figure: str, *key) -> float:
        return round(median(each[figure] for each in found[key]), 1)

    def speed(name: str, whose: str) -> dict:
        by_clock = {str(count): middle("images_per_sec", name, count, whose) for count in numbers}
        return {
            "images_per_cpu_sec": middle("images_per_cpu_sec", name, 1, whose),
            "images_per_sec": by_clock,
            "speed_up": round(by_clock[str(cores)] / by_clock["1"], 2),
        }

    return {name: {whose: speed(name, whose) for whose in measures} for name in pipelines}


def ratios(speeds: dict[str, dict]) -> dict[str, float]:
    """{whose: images of ours over theirs in the same CPU time} of one pipeline."""
    ours, *others = speeds
    return {other: round(speeds[ours]["images_per_cpu_sec"] / speeds[other]["images_per_cpu_sec"], 3) for other in others}


def without_randaugment(augment: ConfigDict) -> ConfigDict:
    changed = augment.copy_and_resolve_references()
    changed.randaugment_layers = 0
    return changed
