"""Our measured pipeline is the one that trains, compared pipelines take turns, and they do the same work."""

import itertools
import os

import numpy as np
import pytest

from mixer_jax.bench import pipelines, speed
from mixer_jax.bench.grain_pipeline import grain_measure
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.digits import DigitsSource
from mixer_jax.models.registry import host_transform

SPEEDS = {"ours": 300.0, "other": 200.0}


def test_speed_is_images_over_time_once_the_buffers_are_full():
    taken = itertools.count()
    found = speed.measure((next(taken) for _ in itertools.count()), seconds=0.02, cores=1)
    assert next(taken) > speed.WARM_UP
    assert found["images_per_sec"] > 0 and found["images_per_cpu_sec"] >= found["images_per_sec"] / 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone can confine a process to a core")
def test_a_pipeline_of_one_core_is_measured_on_one():
    allowed, seen = os.sched_getaffinity(0), []
    speed.measure((seen.append(os.sched_getaffinity(0)) for _ in itertools.count()), seconds=0.01, cores=1)
    assert {len(processors) for processors in seen[speed.WARM_UP :]} == {1}
    assert os.sched_getaffinity(0) == allowed


def test_ours_is_the_stream_that_trains_and_goes_on_where_it_was(tiny_config, monkeypatch):
    monkeypatch.setattr(pipelines, "measure", lambda batches, seconds, cores: next(batches))
    measure = pipelines.our_measure(DigitsSource("train"), tiny_config)
    first, second = (measure(tiny_config.augment, 1, 0.0) for _ in range(2))
    again = pipelines.our_measure(DigitsSource("train"), tiny_config)(tiny_config.augment, 2, 0.0)
    assert first["image"].shape == (speed.BATCH, 4, 4, 12)  # The host has cut the images into patches of 2 pixels.
    assert (first["image"] == again["image"]).all() and (first["image"] != second["image"]).any()


def test_grain_reads_the_same_examples_in_processes_that_count(tiny_config, monkeypatch):
    children = []

    def first_batch(batches, seconds, cores):
        batch = next(batches)
        children.extend(speed._children())
        return batch

    monkeypatch.setattr(pipelines, "measure", first_batch)
    tiny_config.augment.update(crop="resize", randaugment_layers=0)  # Without randomness, examples can be recognized.
    source = DigitsSource("train")
    batch = grain_measure(source, tiny_config)(tiny_config.augment, 1, 0.0)
    ours = pipelines.our_measure(source, tiny_config)(tiny_config.augment, 1, 0.0)
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {name: (x.shape, x.dtype) for name, x in ours.items()}
    records = map(source.__getitem__, range(len(source)))
    transform = train_transform(tiny_config.augment, tiny_config.image_size, host_transform(tiny_config.model))
    known = {(transform(record.image, np.random.default_rng(0)).tobytes(), record.labels) for record in records}
    examples = {(image.tobytes(), (int(label),)) for image, (label,) in zip(batch["image"], batch["labels"], strict=True)}
    assert len(examples) > speed.BATCH / 2 and examples <= known
    assert len(children) >= 1  # The CPU time of Grain's worker is counted.


def test_those_compared_take_turns_at_the_same_work(tiny_config):
    asked = []

    def measure(name):
        def called(augment, threads, seconds):
            asked.append((name, augment.randaugment_layers, threads))
            noise = 1000 * (len(asked) <= len(SPEEDS))  # The first measurement is noisy, which does not change the median.
            return {"images_per_cpu_sec": SPEEDS[name] + noise, "images_per_sec": SPEEDS[name] * threads}

        return called

    tiny_config.augment.randaugment_layers = 2
    found = pipelines.pipeline_speeds(tiny_config.augment, {name: measure(name) for name in SPEEDS}, cores=4)
    assert [name for name, *_ in asked] == pipelines.ROUNDS * 4 * list(SPEEDS)
    assert asked[::2] == [("ours", *rest) for _, *rest in asked[1::2]]
    for speeds in found.values():
        assert speeds["other"] == {"images_per_cpu_sec": 200, "images_per_sec": {"1": 200, "4": 800}, "speed_up": 4}
        assert pipelines.ratios(speeds) == pipelines.clock_ratios(speeds) == {"other": 1.5}
    assert len(found) == 2
