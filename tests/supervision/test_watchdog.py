"""The watchdog ends a program exactly when nothing goes on for longer than the bound of its phase."""

import re
import statistics
import time

import pytest
from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.options import OPTIONS
from mixer_jax.stopwatch import Stopwatch
from mixer_jax.supervision.watchdog import BOUNDS, FIRST_STEPS, TICK_SECONDS, Watchdog

SECONDS = {"restore_seconds": 40, "compile_seconds": 50, "step_seconds": 10, "data_seconds": 20, "save_seconds": 30}
SECONDS |= {"evaluation_seconds": 60, "step_medians": 20}


def bounds(**changes: float) -> ConfigDict:
    return ConfigDict({name: float(seconds) for name, seconds in (SECONDS | changes).items()})


class Watched:
    """A program on a clock that the test moves on, with a watchdog that is awake all the time unless the program is stopped."""

    def __init__(self, monkeypatch, **changes: float):
        self._now, self.stall = 1000.0, None
        monkeypatch.setattr(time, "monotonic", lambda: self._now)
        self.stopwatch = Stopwatch()
        self.watchdog = Watchdog(self.stopwatch, bounds(**changes), lambda _: None)

    def spend(self, seconds: float) -> bool:
        """Let time pass, and return whether the watchdog has come to a verdict."""
        for _ in range(round(seconds / TICK_SECONDS)):
            self._now += TICK_SECONDS
            self.stall = self.stall or self.watchdog.check()
        return self.stall is not None

    def stop(self, seconds: float) -> None:
        """Stop the whole process, and continue it."""
        self._now += seconds

    def step(self, step: int, seconds: float) -> None:
        with self.stopwatch("training"):
            assert not self.spend(seconds)
            self.stopwatch.beat(step)

    def train(self, steps: int, seconds: float = 1.0) -> None:
        """Do so many steps that take these seconds each."""
        first = self.stopwatch.read().step or 0
        self.stopwatch.beat(first)
        for step in range(first + 1, first + steps + 1):
            self.step(step, seconds)


@pytest.fixture
def watched(monkeypatch):
    return lambda **changes: Watched(monkeypatch, **changes)


def test_every_bound_is_an_option_and_every_option_a_bound_of_a_phase():
    options = {row.name.removeprefix("watchdog.") for row in OPTIONS if row.name.startswith("watchdog.")}
    assert options == {option for _, option in BOUNDS.values()} | {"step_medians"} == set(default_config().watchdog)


@pytest.mark.parametrize("phase", BOUNDS)
def test_each_phase_has_the_bound_of_its_option(watched, phase: str):
    option = BOUNDS[phase][1]
    program = watched()
    program.train(FIRST_STEPS + 5, seconds=0.0 if phase == "data" else TICK_SECONDS)
    bound = max(SECONDS[option], SECONDS["step_medians"] * TICK_SECONDS if option == "step_seconds" else 0)
    with program.stopwatch(phase):
        assert not program.spend(bound)
        assert program.spend(2 * TICK_SECONDS)
    assert program.stall.phase == phase
    assert program.stall.seconds == pytest.approx(bound, abs=2 * TICK_SECONDS)
    said = rf"while {BOUNDS[phase][0]} after step {FIRST_STEPS + 5}, .* (?P<bound>\d+) s \(config\.watchdog\.{option}="
    assert int(re.search(said, program.stall.summary)["bound"]) == bound
    assert f"--config.watchdog.{option} higher" in program.stall.advice


@pytest.mark.parametrize("phase", BOUNDS)
def test_zero_is_no_bound(watched, phase: str):
    program = watched(**{BOUNDS[phase][1]: 0})
    program.train(FIRST_STEPS + 5)
    with program.stopwatch(phase):
        assert not program.spend(10_000)


def test_the_initialization_has_no_bound(watched):
    assert not watched().spend(10_000)


def test_phases_that_follow_each_other_and_beats_are_work(watched):
    program = watched()
    for _ in range(10):
        for phase in BOUNDS:
            with program.stopwatch(phase):
                assert not program.spend(SECONDS["step_seconds"] - 1)
    with program.stopwatch("evaluation"):
        for _ in range(10):
            assert not program.spend(SECONDS["evaluation_seconds"] - 1)
            program.stopwatch.beat()
        assert program.spend(SECONDS["evaluation_seconds"] + 1)


def test_a_phase_that_is_returned_to_begins_anew(watched):
    program = watched()
    program.train(FIRST_STEPS + 5, seconds=TICK_SECONDS)
    with program.stopwatch("training"):
        assert not program.spend(9)
        with program.stopwatch("data"):
            assert not program.spend(19)
        assert not program.spend(9)
        assert program.spend(2)


@pytest.mark.parametrize("seconds", [[3] * 40, [1] * 30 + [9] * 10, [9] * 10 + [2] * 30, [0.5] * 40])
def test_a_step_may_take_so_many_times_the_median_of_the_steps_so_far(watched, seconds):
    program = watched()
    for step_seconds in seconds:
        program.train(1, step_seconds)
    bound = max(SECONDS["step_seconds"], SECONDS["step_medians"] * statistics.median(seconds))
    with program.stopwatch("training"):
        assert not program.spend(bound - TICK_SECONDS)
        assert program.spend(3 * TICK_SECONDS)


def test_pauses_for_data_checkpoints_and_evaluations_are_no_time_of_a_step(watched):
    program = watched(data_seconds=0, evaluation_seconds=0)
    for _ in range(30):
        program.train(1, TICK_SECONDS)
        for phase in ("data", "evaluation"):
            with program.stopwatch(phase):
                program.spend(100)
    with program.stopwatch("device"):
        assert not program.spend(SECONDS["step_seconds"])
        assert program.spend(1)


@pytest.mark.parametrize("compile_seconds", [50, 5, 0])
def test_each_of_the_first_steps_may_take_as_long_as_compiling(watched, compile_seconds: int):
    program = watched(compile_seconds=compile_seconds)
    program.train(FIRST_STEPS - 1, seconds=0.5)
    with program.stopwatch("training"):
        if not compile_seconds:
            assert not program.spend(10_000)
            return
        bound = max(compile_seconds, SECONDS["step_seconds"])
        assert not program.spend(bound)
        assert program.spend(1)


def test_steps_that_were_never_seen_one_by_one_have_a_bound_all_the_same(watched):
    program = watched()
    program.stopwatch.beat(0)
    program.stopwatch.beat(1000)
    with program.stopwatch("training"):
        assert not program.spend(SECONDS["compile_seconds"])
        assert program.spend(1)


def test_only_the_time_counts_in_which_the_watchdog_was_awake(watched):
    program = watched()
    with program.stopwatch("data"):
        assert not program.spend(15)
        program.stop(86_400)
        assert not program.spend(3)
        program.stop(86_400)
        assert not program.spend(0.5)
        assert program.spend(2)
    assert program.stall.seconds > 2 * 86_400  # This is the time that was lost, by the clock on the wall.


def test_a_machine_so_busy_that_the_watchdog_sleeps_as_well_takes_longer_but_has_a_bound(monkeypatch, watched):
    program = watched()
    with program.stopwatch("data"):
        ticks = 0
        while not program.watchdog.check():
            program.stop(10)  # Between two ticks.
            ticks += 1
    assert ticks * 2 * TICK_SECONDS == pytest.approx(SECONDS["data_seconds"], abs=2)
