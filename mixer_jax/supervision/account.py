"""The account of a run's wall time: how much of it each start has spent on what, and how much was productive.

The input is what a run records of each of its starts, in WORKDIR/goodput.jsonl (recorded_starts.py reads it). Nothing here reads
a file or a clock.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# {phase of a process: the part of the wall time that it belongs to}. Some seconds of "training" are of steps done twice.
PART_OF_PHASE = {
    "training": "productive",
    "initialization": "initialization",
    "compile": "compiling",
    "restore": "restoring",
    "data": "waiting for data",
    "checkpoint": "saving",
    "evaluation": "evaluating",
    "stalled": "stalled",
}
PARTS = (
    "productive", "initialization", "compiling", "restoring", "waiting for data", "saving", "evaluating",
    "steps done twice", "stalled", "down",
)  # fmt: skip
ENDINGS = ("running", "done", "stopped", "failed", "stalled")
NOTES = (
    "Steps done twice: a later start did them again, because it resumed from a checkpoint before them. Their seconds are an "
    "estimate: their number times the mean seconds of a step of their start.",
    "Down: from the end of a start to the beginning of the next one, by the machines\u2019 clocks.",
)


class Start(NamedTuple):
    """What a run has recorded of one of its starts."""

    number: int  # counts from 0
    began: float  # Unix time
    ended: float  # Unix time; of the last record if the ending is not known
    first_step: int  # the step that it resumed from, so it did the steps after this one
    last_step: int
    ending: str  # one of ENDINGS; "running" also after a kill
    phases: Mapping[str, float]  # seconds by phase, which add up to `ended` - `began`

    @property
    def training_seconds(self) -> float:
        """The seconds in the training loop itself."""
        return self.phases.get("training", 0.0)


class Entry(NamedTuple):
    """The entry of a start in an account."""

    start: Start
    ending: str  # one of ENDINGS or, if a later start shows that a running one has ended, "killed"
    seconds: dict[str, float]  # by part; "down" is the time from the end of this start to the next one

    @property
    def wall_seconds(self) -> float:
        """The seconds from the beginning of this start to that of the next one."""
        return _total(self.seconds.values())


class Account(NamedTuple):
    """Where the wall time of a run went. All seconds are multiples of a tenth, so what is shown adds up."""

    entries: Sequence[Entry]  # in the order of the starts
    seconds: dict[str, float]  # of all starts, by part, in the order of PARTS

    @property
    def wall_seconds(self) -> float:
        """The seconds from the beginning of the first start to the end of the last one."""
        return _total(self.seconds.values())

    @property
    def goodput(self) -> float | None:
        """The share of the wall time that was productive, or None if there was no time."""
        return self.seconds["productive"] / self.wall_seconds if self.wall_seconds else None


def account(starts: Sequence[Start]) -> Account:
    """Return where the wall time of a run with these starts went.

    The wall time is that of all starts and, between them, as far as the clock did not go back, the time in which the run was
    down. Steps that a later start did again count once as productive.
    """
    entries: list[Entry] = []
    resumed_from = math.inf  # the smallest step that a later start trained from
    following = None
    for start in reversed(starts):
        seconds = {part: start.phases.get(phase, 0.0) for phase, part in PART_OF_PHASE.items()}
        share = _share_done_twice(start, resumed_from)
        seconds |= {"productive": start.training_seconds * (1 - share), "steps done twice": start.training_seconds * share}
        seconds["down"] = max(0.0, following.began - start.ended) if following else 0.0
        ending = "killed" if following and start.ending == "running" else start.ending
        entries.append(Entry(start, ending, {part: round(seconds[part], 1) for part in PARTS}))
        if start.training_seconds:
            resumed_from = min(resumed_from, start.first_step)
        following = start
    return Account(entries[::-1], {part: _total(entry.seconds[part] for entry in entries) for part in PARTS})


def _share_done_twice(start: Start, resumed_from: float) -> float:
    """Return the share of the steps of a start that a later start did again, having resumed from `resumed_from`.

    A start that trained and has no step was ended in its first step, which is then the step that was done again.
    """
    steps = start.last_step - start.first_step
    if steps == 0:
        return float(resumed_from <= start.last_step)
    return max(0.0, start.last_step - max(resumed_from, start.first_step)) / steps


def _total(seconds: Iterable[float]) -> float:
    """Return the sum of multiples of a tenth of a second as such a multiple."""
    return round(math.fsum(seconds), 1)
