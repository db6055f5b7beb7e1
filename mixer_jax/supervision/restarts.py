"""Decides whether a program that has ended is started again, and when: by its exit code and by the checkpoints that it made."""

import signal
from typing import NamedTuple

from mixer_jax import endings

FIRST_PAUSE_SECONDS, PAUSE_GROWTH = 1.0, 10.0
FINAL = (endings.DONE, endings.TO_MEND)  # After these codes a program is never started again.
WORDS = {
    endings.TRY_AGAIN: "failed",
    endings.TO_MEND: "a person must change something",
    endings.STOPPED: "stopped and saved",
    endings.STALLED: "stalled",
    endings.INTERRUPTED: "interrupted",
    -signal.SIGABRT: "as JAX does when another host is gone",
}


class Limits(NamedTuple):
    """What a supervisor allows."""

    grace_seconds: float = 25.0  # From a SIGTERM to SIGKILL. Spot machines have 30 before they go.
    max_starts: int = 3  # In a row, without a newer checkpoint.
    max_pause_seconds: float = 60.0
    max_silence_seconds: float = 300.0  # Between two signs of life (signs.py). 0: no bound.


class Budget:
    """The budget of starts that make no newer checkpoint. It is full again with each newer checkpoint.

    Attributes:
      newest: the newest step that has been seen, or None.
      failures: how many starts in a row have made no newer one.
    """

    def __init__(self, limits: Limits, newest: int | None):
        self._limits, self.newest, self.failures = limits, newest, 0

    def spend(self, newest: int | None) -> float | None:
        """Return the seconds until the next start, or None if there must be none, after one that has ended too early.

        The pause is short after progress, for example when another host was lost. Without progress it grows, so that what is
        wrong has time to pass.

        Args:
          newest: The newest step there is now, or None if there is none.
        """
        if newest is not None and (self.newest is None or newest > self.newest):
            self.newest, self.failures = newest, 0
        else:
            self.failures += 1
        if self.failures == self._limits.max_starts:
            return None
        return min(self._limits.max_pause_seconds, FIRST_PAUSE_SECONDS * PAUSE_GROWTH**self.failures)


def exit_code(code: int) -> int:
    """Return an exit code for the end of a process, as shells do: 128 + N for -N, which stands for signal N."""
    return code if code >= 0 else 128 - code


def describe(code: int) -> str:
    """Return a predicate for the end of a process: "ended with 76 (stalled)" or "was ended by SIGSEGV"."""
    words = f" ({WORDS[code]})" if code in WORDS else ""
    if code >= 0:
        return f"ended with {code}{words}"
    known = {-number: number.name for number in signal.Signals}
    return f"was ended by {known.get(code, f'signal {-code}')}{words}"
