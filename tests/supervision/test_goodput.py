"""The rows of goodput.jsonl add up to the time of each start, whatever its history, and earlier rows are kept."""

import json
import random
import threading
import time
from pathlib import Path

import pytest

from mixer_jax.errors import UserError
from mixer_jax.stopwatch import Stopwatch
from mixer_jax.supervision.goodput import GOODPUT, Goodput
from mixer_jax.supervision.watchdog import Stall

FIELDS = ["start", "phase", "seconds", "began", "ended", "first_step", "last_step", "ending"]


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / GOODPUT).read_text().splitlines()]


@pytest.fixture
def clock(monkeypatch):
    now = [1.7e9 + 1 / 3]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0] - 1.6e9)
    return now


def spend(clock, stopwatch: Stopwatch, phases: list[str], draw: random.Random) -> None:
    """Spend time in these phases, each within the one before it."""
    clock[0] += draw.random() * 10 ** draw.randrange(-4, 4)
    if phases:
        with stopwatch(phases[0]):
            spend(clock, stopwatch, phases[1:], draw)
        clock[0] += draw.random()


HISTORIES = {  # {what happens: the nested phases of each start, one after the other}
    "a run from its first step to its last": [["restore"], ["compile"], ["checkpoint", "training", "data"], ["evaluation"]],
    "only evaluated": [["restore"], ["checkpoint", "evaluation"]],
    "many steps": [["restore"], ["compile"], *[["checkpoint", "training", "data"], ["checkpoint", "training", "device"]] * 50],
    "nothing": [],
}


@pytest.mark.parametrize("ending", ["running", "done", "stopped", "failed", "stalled"])
@pytest.mark.parametrize("history", HISTORIES)
def test_the_rows_of_a_start_add_up_to_its_time_whatever_happens(tmp_path, clock, history: str, ending: str):
    draw = random.Random(history + ending)
    for start in range(3):
        began = clock[0] - 1.5
        stopwatch = Stopwatch(age=1.5)
        goodput = Goodput(tmp_path, stopwatch)
        stopwatch.beat(7)
        for phases in HISTORIES[history]:
            spend(clock, stopwatch, phases, draw)
        stopwatch.beat(9)
        clock[0] += 1
        stall = Stall("initialization", 0.5, "", "") if ending == "stalled" else None
        goodput.write(ending, stall)
        found = [row for row in rows(tmp_path) if row["start"] == start]
        assert all(list(row) == FIELDS for row in found)
        assert {(row["first_step"], row["last_step"], row["ending"]) for row in found} == {(7, 9, ending)}
        assert len({(row["began"], row["ended"]) for row in found}) == 1
        assert len({row["phase"] for row in found}) == len(found)
        assert "device" not in {row["phase"] for row in found}
        total = sum(row["seconds"] for row in found)
        assert total == pytest.approx(found[0]["ended"] - found[0]["began"], abs=1e-5)
        assert (found[0]["began"], found[0]["ended"]) == pytest.approx((began, clock[0]), abs=0.01)
        clock[0] += 100  # The run is down.


def test_rows_are_written_anew_while_a_start_runs_and_those_of_earlier_starts_stay_as_they_are(tmp_path, clock):
    earlier = '{"start": 4, "last_step": 30, "phase": "of another version"}\nno row\n'
    (tmp_path / GOODPUT).write_text(earlier)
    stopwatch = Stopwatch()
    goodput = Goodput(tmp_path, stopwatch)
    stopwatch.beat(30)
    for step in (31, 32):
        clock[0] += 10
        stopwatch.beat(step)
        goodput.write()
    text = (tmp_path / GOODPUT).read_text()
    assert text.startswith(earlier)
    (row,) = map(json.loads, text.removeprefix(earlier).splitlines())
    assert (row["start"], row["seconds"], row["first_step"], row["last_step"]) == (5, 20.0, 30, 32)


def test_the_rows_of_a_thread_that_is_slow_never_replace_later_ones(tmp_path):
    has_read, is_written = threading.Event(), threading.Event()

    class SlowAtFirst(Stopwatch):
        """Lets another thread write, if it can, between its first reading and the rows of that."""

        def read(self):
            reading = super().read()
            if not has_read.is_set():
                has_read.set()
                is_written.wait(0.2)
            return reading

    stopwatch = SlowAtFirst()
    goodput = Goodput(tmp_path, stopwatch)
    stopwatch.beat(31)
    slow = threading.Thread(target=goodput.write)
    slow.start()
    has_read.wait()
    stopwatch.beat(32)
    goodput.write()
    is_written.set()
    slow.join()
    assert {row["last_step"] for row in rows(tmp_path)} == {32}


@pytest.mark.parametrize(("ending", "stall"), [("done", None), ("failed", None), ("stalled", Stall("data", 1.0, "", ""))])
def test_rows_with_an_ending_are_the_last(tmp_path, ending: str, stall: Stall | None):
    stopwatch = Stopwatch()
    goodput = Goodput(tmp_path, stopwatch)
    stopwatch.beat(31)
    goodput.write()
    with stopwatch("data"):
        goodput.write(ending, stall)
    goodput.write()  # by the timer, whose thread may still live
    assert {row["ending"] for row in rows(tmp_path)} == {ending}


def test_a_start_that_does_not_know_its_step_writes_no_rows_unless_it_stalls(tmp_path, clock):
    (tmp_path / GOODPUT).write_text('{"start": 0, "last_step": 30}\n')
    stopwatch = Stopwatch()
    goodput = Goodput(tmp_path, stopwatch)
    with stopwatch("restore"):
        clock[0] += 50
        goodput.write()
        goodput.write("failed")
        assert len(rows(tmp_path)) == 1
        goodput.write("stalled", Stall("restore", 40.0, "", ""))
    seconds = {row["phase"]: row["seconds"] for row in rows(tmp_path)[1:]}
    assert seconds == pytest.approx({"initialization": 0.0, "restore": 10.0, "stalled": 40.0})
    assert {(row["first_step"], row["last_step"]) for row in rows(tmp_path)[1:]} == {(30, 30)}  # It did no step again.


def test_a_stall_that_began_in_a_phase_before_takes_no_more_than_its_phase_has(tmp_path, clock):
    stopwatch = Stopwatch()
    goodput = Goodput(tmp_path, stopwatch)
    with stopwatch("data"):
        clock[0] += 5
        goodput.write("stalled", Stall("data", 8.0, "", ""))
    assert {row["phase"]: row["seconds"] for row in rows(tmp_path)} == {"initialization": 0.0, "data": 0.0, "stalled": 5.0}


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / GOODPUT).mkdir()
    with pytest.raises(UserError, match="no ordinary file"):
        Goodput(tmp_path, Stopwatch())
