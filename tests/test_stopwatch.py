"""The phases of a stopwatch exclude each other and add up to the time, whatever happens in them."""

import os
import random
import subprocess
import sys
import threading
import time

import pytest

from mixer_jax.stopwatch import INITIALIZATION, Stopwatch, process_age

PHASES = ("restore", "compile", "training", "data", "checkpoint")


@pytest.fixture
def clock(monkeypatch):
    """The time of time.monotonic() as a list of one number, which a test moves on."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_phase_that_fails_counts_too(clock):
    stopwatch = Stopwatch()
    for phase, seconds in (("data", 1.0), ("device", 2.0), ("data", 0.5)):
        with stopwatch(phase):
            clock[0] += seconds
    with pytest.raises(ZeroDivisionError), stopwatch("device"):
        clock[0] += 4.0
        _ = 1 / 0
    clock[0] += 10.0
    assert stopwatch.report() == {INITIALIZATION: 10.0, "data": 1.5, "device": 6.0, "total": 17.5}


@pytest.mark.parametrize("seed", range(20))
def test_time_counts_for_the_innermost_phase_alone_and_the_phases_add_up(clock, seed: int):
    draw, age = random.Random(seed), 2.0
    expected, stopwatch = {INITIALIZATION: age}, Stopwatch(age)

    def spend(phase: str, depth: int) -> None:
        """Spend some time in a phase, before and between phases within it, some of which fail."""
        for _ in range(draw.randrange(4)):
            seconds = draw.randrange(8) / 4
            clock[0] += seconds
            expected[phase] = expected.get(phase, 0.0) + seconds
            reading = stopwatch.read()
            assert (reading.phase, sum(reading.seconds.values())) == (phase, clock[0] - 100.0 + age)
            inner = draw.choice(PHASES)
            if depth < 4:
                with pytest.raises(KeyError), stopwatch(inner):
                    spend(inner, depth + 1)
                    raise KeyError
                with stopwatch(inner):
                    spend(inner, depth + 1)

    spend(INITIALIZATION, 0)
    seconds = stopwatch.read().seconds
    assert {phase: s for phase, s in seconds.items() if s} == {phase: s for phase, s in expected.items() if s}
    assert stopwatch.report()["total"] == clock[0] - 100.0 + age


def test_something_moves_when_a_phase_begins_or_is_returned_to_and_at_each_beat(clock):
    stopwatch = Stopwatch()
    moved = [stopwatch.read().moved]
    clock[0] = 101.0
    with stopwatch("training"):
        moved.append(stopwatch.read().moved)
        clock[0] = 102.0
        with stopwatch("data"):
            clock[0] = 103.0
            moved.append(stopwatch.read().moved)
        moved.append(stopwatch.read().moved)
        clock[0] = 104.0
        stopwatch.beat()
        clock[0] = 105.0
        moved.append(stopwatch.read().moved)
    assert moved == [100.0, 101.0, 102.0, 103.0, 104.0]


def test_it_knows_the_first_step_and_the_last_and_when_that_was(clock):
    stopwatch = Stopwatch()
    stopwatch.beat()
    assert stopwatch.read()[-3:] == (None, None, None)
    for step in (40, 41, 42):
        stopwatch.beat(step)
        clock[0] += 1.0
    stopwatch.beat()
    assert stopwatch.read()[-3:] == (40, 42, 102.0)


def test_a_thread_that_reads_while_the_run_works_sees_phases_that_add_up():
    stopwatch, ended, faults = Stopwatch(), threading.Event(), []

    def read() -> None:
        while not ended.is_set():
            before, reading, after = time.monotonic(), stopwatch.read(), time.monotonic()
            total = sum(reading.seconds.values())
            if not before - start - 1e-6 <= total <= after - start + 1e-6:
                faults.append((before, total, after))

    start = stopwatch.read().moved
    thread = threading.Thread(target=read)
    thread.start()
    for number in range(3000):
        with stopwatch("training"), stopwatch("data"):
            stopwatch.beat(number)
    ended.set()
    thread.join()
    assert not faults


def test_the_age_of_a_process_is_the_time_since_it_was_started():
    code = "import time; time.sleep(0.5); from mixer_jax.stopwatch import process_age; print(process_age())"
    start = time.monotonic()
    age = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0.4 < age < time.monotonic() - start + 0.1
    assert process_age() > 0 and os.getpid()
