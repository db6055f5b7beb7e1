"""TensorBoard's events are the numbers of metrics.jsonl after any interruption."""

import json
from pathlib import Path

import pytest
from tensorboard_events import read_scalars

from mixer_jax.records import MetricWriter, read_metrics
from mixer_jax.tensorboard import read_points

STEPS = range(2, 13, 2)


def write(folder: Path, from_step: int, to_step: int) -> None:
    metrics = MetricWriter(folder, from_step)
    for step in STEPS:
        if from_step < step <= to_step:
            metrics.write(step, {"loss": 1 / step, "mfu": None})
            if step % 4 == 0:
                metrics.write_evals(step, {"test": {"top1": step / 100, "examples": 7}})
    metrics.close()


def event_files(folder: Path) -> list[Path]:
    return sorted((folder / "tensorboard").iterdir())


def cut_last_event(folder: Path) -> None:
    file = event_files(folder)[-1]
    file.write_bytes(file.read_bytes()[:-5])


def line_without_events(folder: Path) -> None:
    """A kill between the two files."""
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 8, "other": 3.0}) + "\n")


def damage(folder: Path) -> None:
    file = event_files(folder)[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    file.write_bytes(content)


def remove(folder: Path) -> None:
    for file in event_files(folder):
        file.unlink()


HAPPENINGS = {
    "nothing": lambda folder: None,
    "the last event cut short": cut_last_event,
    "a line without its events": line_without_events,
    "a damaged file": damage,
    "files that were removed": remove,
}

DAMAGED = ("a damaged file", "the last event cut short")  # which the tests' own reader cannot read


@pytest.mark.parametrize("resumed_from", [4, 8])
@pytest.mark.parametrize("happened", HAPPENINGS)
def test_after_a_restart_tensorboard_has_the_numbers_of_metrics_jsonl_and_no_other(happened, resumed_from, tmp_path, monkeypatch):
    clock = iter(range(10**9, 2 * 10**9))
    monkeypatch.setattr("time.time", lambda: next(clock))  # the names of event files have the time
    write(tmp_path, 0, 8)
    HAPPENINGS[happened](tmp_path)
    write(tmp_path, resumed_from, 12)
    expected = {
        (row["step"], name): value
        for row in read_metrics(tmp_path)
        for name, value in row.items()
        if name != "step" and value is not None
    }
    assert read_points(tmp_path / "tensorboard") == set(expected)
    scalars = read_scalars(tmp_path / "tensorboard") if happened not in DAMAGED else {}
    assert {key: scalars[key[1]][key[0]] for key in expected if scalars} == (pytest.approx(expected) if scalars else {})


def test_what_is_there_is_not_written_again(tmp_path: Path, monkeypatch):
    clock = iter(range(10**9, 2 * 10**9))
    monkeypatch.setattr("time.time", lambda: next(clock))
    write(tmp_path, 0, 12)
    write(tmp_path, 12, 12)
    first, second = event_files(tmp_path)
    assert second.stat().st_size < 150 < first.stat().st_size
