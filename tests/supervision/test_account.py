"""The account of a run's wall time: its parts add up, and each second is in the part in which it was spent."""

import itertools

import pytest
from supervision.histories import BEGAN, THREE_STARTS, random_history, rows_of, text_of

from mixer_jax.supervision.account import PART_OF_PHASE, PARTS, Account, account
from mixer_jax.supervision.recorded_starts import parse_starts

HALF = 0.05 + 1e-6  # The most by which seconds change when they are rounded to tenths.


def account_of(rows: list[dict]) -> Account:
    return account(parse_starts(text_of(rows), "goodput.jsonl"))


def clock_of(rows: list[dict]) -> float:
    """Return the wall time by the clocks alone: that of each start, and what lies between one and the next."""
    times = list({row["start"]: (row["began"], row["ended"]) for row in rows}.values())
    gaps = [max(0.0, began - ended) for (_, ended), (began, _) in itertools.pairwise(times)]
    return sum(ended - began for began, ended in times) + sum(gaps)


@pytest.mark.parametrize("seed", range(200))
def test_the_parts_add_up_to_the_wall_time(seed):
    rows, _ = random_history(seed)
    found = account_of(rows)
    assert list(found.seconds) == list(PARTS) and min(min(entry.seconds.values()) for entry in found.entries) >= 0
    assert sum(found.seconds.values()) == pytest.approx(found.wall_seconds, abs=1e-6)
    assert found.wall_seconds == pytest.approx(clock_of(rows), abs=HALF * len(PARTS) * len(found.entries))
    for entry in found.entries:
        assert sum(entry.seconds.values()) == pytest.approx(entry.wall_seconds, abs=1e-6)
    assert sum(entry.wall_seconds for entry in found.entries) == pytest.approx(found.wall_seconds, abs=1e-6)


@pytest.mark.parametrize("seed", range(200))
def test_a_phase_is_in_its_part_and_training_is_productive_for_the_steps_that_last(seed):
    rows, lasting = random_history(seed)
    for entry, steps in zip(account_of(rows).entries, lasting, strict=True):
        start = entry.start
        for phase, part in PART_OF_PHASE.items():
            if phase != "training":
                assert entry.seconds[part] == pytest.approx(start.phases.get(phase, 0.0), abs=HALF)
        done = start.last_step - start.first_step
        productive = start.training_seconds * steps / done if done else 0.0
        assert entry.seconds["productive"] == pytest.approx(productive, abs=HALF)
        assert entry.seconds["steps done twice"] == pytest.approx(start.training_seconds - productive, abs=HALF)


def nonzero(seconds: dict[str, float]) -> dict[str, float]:
    return {part: value for part, value in seconds.items() if value}


CASES = {  # {name: (rows, seconds by part, wall time, endings)}
    "a run that was never restarted": (
        rows_of(0, BEGAN, 0, 40, "done", initialization=5.0, compile=10.0, training=80.0, data=2.0, checkpoint=3.0),
        {"productive": 80.0, "initialization": 5.0, "compiling": 10.0, "waiting for data": 2.0, "saving": 3.0},
        100.0,
        ["done"],
    ),
    "a kill at step 30 after a checkpoint at 20": (
        [
            *rows_of(0, BEGAN, 0, 30, initialization=5.0, training=60.0),
            *rows_of(1, BEGAN + 75, 20, 40, "done", initialization=4.0, restore=1.0, training=40.0),
        ],
        {"productive": 80.0, "initialization": 9.0, "restoring": 1.0, "steps done twice": 20.0, "down": 10.0},
        120.0,
        ["killed", "done"],
    ),
    "a fall-back to an older checkpoint after a start that did nothing": (
        [
            *rows_of(0, BEGAN, 0, 30, training=60.0),
            *rows_of(1, BEGAN + 60, 20, 20, "failed", restore=5.0),
            *rows_of(2, BEGAN + 65, 10, 40, "done", training=60.0),
        ],
        {"productive": 80.0, "restoring": 5.0, "steps done twice": 40.0},
        125.0,
        ["killed", "failed", "done"],
    ),
    "a start that did nothing since, although it began at an older checkpoint": (
        [*rows_of(0, BEGAN, 0, 30, training=60.0), *rows_of(1, BEGAN + 60, 0, 0, "failed", initialization=5.0)],
        {"productive": 60.0, "initialization": 5.0},
        65.0,
        ["killed", "failed"],
    ),
    "a kill in the first step": (
        [*rows_of(0, BEGAN, 0, 0, training=7.0), *rows_of(1, BEGAN + 7, 0, 10, "done", training=20.0)],
        {"productive": 20.0, "steps done twice": 7.0},
        27.0,
        ["killed", "done"],
    ),
    "a clock that was set back": (
        [*rows_of(0, BEGAN, 0, 10, training=100.0), *rows_of(1, BEGAN + 30, 10, 20, "done", training=100.0)],
        {"productive": 200.0},
        200.0,
        ["killed", "done"],
    ),
    "a stall": (
        [
            *rows_of(0, BEGAN, 0, 10, "stalled", training=20.0, stalled=600.0),
            *rows_of(1, BEGAN + 621, 10, 20, training=20.0),
        ],
        {"productive": 40.0, "stalled": 600.0, "down": 1.0},
        641.0,
        ["stalled", "running"],
    ),
    "a run that was evaluated again after its end": (
        [
            *rows_of(0, BEGAN, 0, 40, "done", training=80.0, evaluation=5.0),
            *rows_of(1, BEGAN + 1000, 40, 40, "done", restore=2.0, evaluation=8.0),
        ],
        {"productive": 80.0, "restoring": 2.0, "evaluating": 13.0, "down": 915.0},
        1010.0,
        ["done", "done"],
    ),
    "steps that were done three times": (
        [
            *rows_of(0, BEGAN, 0, 30, training=60.0),
            *rows_of(1, BEGAN + 60, 20, 25, training=10.0),
            *rows_of(2, BEGAN + 70, 20, 40, "done", training=40.0),
        ],
        {"productive": 80.0, "steps done twice": 30.0},
        110.0,
        ["killed", "killed", "done"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_seconds_of_a_history_are_where_they_were_spent(case):
    rows, seconds, wall_seconds, endings = CASES[case]
    found = account_of(rows)
    assert nonzero(found.seconds) == seconds
    assert found.wall_seconds == wall_seconds
    assert [entry.ending for entry in found.entries] == endings
    assert found.goodput == pytest.approx(seconds["productive"] / wall_seconds)


def test_a_run_without_any_time_has_no_goodput():
    assert account_of(rows_of(0, BEGAN, 0, 0, initialization=0.0)).goodput is None


def test_the_wall_time_is_that_from_the_first_beginning_to_the_last_end():
    found = account_of(THREE_STARTS)
    assert found.wall_seconds == pytest.approx(THREE_STARTS[-1]["ended"] - BEGAN, abs=0.5)
