"""The stopwatch of a run: where its time goes, and since when nothing has gone on.

A run is always in one phase: "initialization" until it enters another. Phases may be nested, and time counts for the innermost
one alone, so the phases add up to the time since the start. The threads of supervision/ read the stopwatch while the run works.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

INITIALIZATION, DEVICE, STALLED = "initialization", "device", "stalled"


class Reading(NamedTuple):
    """What a stopwatch shows at one moment. All times are seconds of time.monotonic().

    Attributes:
      phase: the innermost phase.
      moved: when this phase began or was returned to, or when something went on in it, whichever was last.
      seconds: {phase: the seconds spent in it so far}.
      first_step: the step at which this start began, or None before it is known.
      step: the last step that is done, or None.
      step_time: when it was done, or None.
    """

    phase: str
    moved: float
    seconds: dict[str, float]
    first_step: int | None
    step: int | None
    step_time: float | None


class Stopwatch:
    """The seconds that a run spends in each of its phases: `with stopwatch("data"): ...`. One thread enters phases, all may read.

    Attributes:
      began: when the stopwatch was started, in seconds since 1970.
    """

    def __init__(self, age: float = 0.0):
        """Start in the phase "initialization", as if `age` seconds ago."""
        self.began = time.time() - age
        self._start = self._since = self._moved = time.monotonic() - age
        self._phases: tuple[str, ...] = (INITIALIZATION,)
        self._seconds: dict[str, float] = defaultdict(float)
        self._first_step: int | None = None
        self._step: int | None = None
        self._step_time: float | None = None
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time of the block for `phase`, except for the phases within it."""
        outer = self._phases
        self._change((*outer, phase))
        try:
            yield
        finally:
            self._change(outer)

    def _change(self, phases: tuple[str, ...]) -> None:
        with self._lock:
            now = time.monotonic()
            self._seconds[self._phases[-1]] += now - self._since
            self._phases, self._since, self._moved = phases, now, now

    def beat(self, step: int | None = None) -> None:
        """Note that something has gone on: that `step` is done, for example, or a batch of an evaluation."""
        with self._lock:
            self._moved = time.monotonic()
            if step is not None:
                self._first_step = step if self._first_step is None else self._first_step
                self._step, self._step_time = step, self._moved

    def read(self) -> Reading:
        """Return what the stopwatch shows now."""
        with self._lock:
            seconds = dict(self._seconds)
            seconds[self._phases[-1]] = seconds.get(self._phases[-1], 0.0) + time.monotonic() - self._since
            return Reading(self._phases[-1], self._moved, seconds, self._first_step, self._step, self._step_time)

    def report(self) -> dict[str, float]:
        """Return the seconds by phase, and "total" since the start."""
        seconds = self.read().seconds
        return {phase: round(s, 3) for phase, s in seconds.items()} | {"total": round(sum(seconds.values()), 3)}


def process_age() -> float:
    """Return the seconds since this process was started, or 0 where the system does not tell."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()  # The fields after the name of the program, which may have spaces.
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # Seconds between the start of the system and that of the process.
    except OSError:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
