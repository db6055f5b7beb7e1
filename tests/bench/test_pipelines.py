"""Whole input pipelines: ours is the one that trains, comparisons take turns, and what is compared is the same work."""

import itertools
import os
import sys
from pathlib import Path

import pytest

from benchmarks.big_vision_pipeline import big_vision, preprocessing, write_images
from mixer_jax.bench import pipelines, speed
from mixer_jax.data.sources.digits import DigitsSource
from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.errors import UserError

SPEEDS = {"ours": 300.0, "theirs": 200.0}


def test_speed_is_images_over_time_once_the_buffers_are_full():
    taken = itertools.count()
    found = speed.measure((next(taken) for _ in itertools.count()), seconds=0.02, cores=1)
    assert next(taken) > speed.WARM_UP
    assert found["images_per_sec"] > 0 and found["images_per_cpu_sec"] >= found["images_per_sec"] / 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone can confine a process to a core")
def test_a_pipeline_of_one_core_is_measured_on_one():
    allowed, seen = os.sched_getaffinity(0), []
    speed.measure((seen.append(os.sched_getaffinity(0)) for _ in itertools.count()), seconds=0.01, cores=1)
    assert {len(each) for each in seen[speed.WARM_UP :]} == {1}
    assert os.sched_getaffinity(0) == allowed


def test_ours_is_the_stream_that_trains_and_goes_on_where_it_was(tiny_config, monkeypatch):
    monkeypatch.setattr(pipelines, "measure", lambda batches, seconds, cores: next(batches))
    measure = pipelines.our_measure(DigitsSource("train"), tiny_config)
    first, second = (measure(tiny_config.augment, 1, 0.0) for _ in range(2))
    again = pipelines.our_measure(DigitsSource("train"), tiny_config)(tiny_config.augment, 2, 0.0)
    assert first["image"].shape == (speed.BATCH, 4, 4, 12)  # in patches of 2, as the model takes them
    assert (first["image"] == again["image"]).all() and (first["image"] != second["image"]).any()


def test_those_compared_take_turns_at_the_same_work(tiny_config):
    asked = []

    def measure(whose):
        def called(augment, threads, seconds):
            asked.append((whose, augment.randaugment_layers, threads))
            noise = 1000 * (len(asked) <= len(SPEEDS))  # of the first of each: a median does not mind
            return {"images_per_cpu_sec": SPEEDS[whose] + noise, "images_per_sec": SPEEDS[whose] * threads}

        return called

    tiny_config.augment.randaugment_layers = 2
    found = pipelines.pipeline_speeds(tiny_config.augment, {whose: measure(whose) for whose in SPEEDS}, cores=4)
    assert [whose for whose, *_ in asked] == pipelines.ROUNDS * 4 * list(SPEEDS)
    assert asked[::2] == [("ours", *rest) for _, *rest in asked[1::2]]
    for speeds in found.values():
        assert speeds["theirs"] == {"images_per_cpu_sec": 200, "images_per_sec": {"1": 200, "4": 800}, "speed_up": 4}
        assert pipelines.ratios(speeds) == {"theirs": 1.5}
    assert len(found) == 2


def test_big_vision_is_asked_for_what_the_config_says(tiny_config):
    augment = tiny_config.augment
    augment.update(flip=True, randaugment_layers=2, randaugment_magnitude=15, crop_min_area=0.05)
    crop, flip, randaugment = preprocessing(augment, 224).split("|")
    assert crop.startswith("decode_jpeg_and_inception_crop(224, 5.0, 100, 0.75, 1.33") and flip == "flip_lr"
    assert randaugment == "randaug(2, 15)"
    assert "randaug" not in preprocessing(pipelines.without_randaugment(augment), 224)
    augment.crop = "random"
    with pytest.raises(UserError, match="crop is random"):
        preprocessing(augment, 224)


def test_only_jpegs_can_be_compared(tmp_path: Path):
    with pytest.raises(UserError, match="digits train record 0 is none"):
        write_images(DigitsSource("train"), 4, tmp_path)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Without big_vision's code, and without TensorFlow beside it."""
    (tmp_path / "clone/big_vision/pp").mkdir(parents=True)
    (tmp_path / "clone/big_vision/pp/builder.py").write_text("")
    (tmp_path / "clone/tensorflow.py").write_text("raise ImportError('no TensorFlow here')")
    (tmp_path / "images/class").mkdir(parents=True)
    (tmp_path / "images/class/0.jpg").write_bytes(b"\xff\xd8")
    return tmp_path / "clone"


@pytest.mark.parametrize(
    ("folder", "python", "message"),
    [
        (".", sys.executable, "no clone of big_vision.*git clone"),
        ("clone", "/no/python", "/no/python cannot be run: No such file.*make peers"),
        ("clone", sys.executable, "does not run big_vision: ImportError: no TensorFlow here.*make peers"),
    ],
)
def test_what_is_missing_for_a_comparison_is_one_message(clone: Path, folder: str, python: str, message: str):
    source = FolderSource(str(clone.parent / "images"), "")
    with pytest.raises(UserError, match=message), big_vision(clone.parent / folder, python, source, 1, 224):
        pass
