"""The account of a run's time: WORKDIR/goodput.jsonl, a row for each start and each phase of it.

    {"start": 0, "phase": "training", "seconds": 12.345, "began": 1764589000.123, "ended": 1764589100.5,
     "first_step": 0, "last_step": 40, "ending": "running"}

`began` is when the process was started, in seconds since 1970, and `ended` is `began` plus the time since then, until the rows
were written. Both are the same in all rows of a start, and the seconds of these rows add up to their difference. The start did
the steps after `first_step` up to `last_step`. `ending` is "done", "stopped" (as asked), "failed", "stalled" (by the watchdog's
verdict; the phase "stalled" is the time in which nothing went on), or "running" while the start runs and after it was killed.

A start that knows its step writes its rows every ten seconds and with each checkpoint. The time of one that dies before its first
rows is not in the file.
"""

import json
import threading
from pathlib import Path

from mixer_jax.stopwatch import DEVICE, STALLED, Reading, Stopwatch
from mixer_jax.storage import json_text, read_bytes, write_whole
from mixer_jax.supervision.recorded_starts import GOODPUT
from mixer_jax.supervision.watchdog import Stall

MAX_BYTES = 2**28  # About 200 000 starts. The commands that read the file stop at fewer; a run does not.


class Goodput:
    """The rows of one start. They are written again and again, after those of earlier starts, which are kept as they are."""

    def __init__(self, workdir: Path, stopwatch: Stopwatch):
        """Read the rows of earlier starts. Raises UserError if the file is too large, or is no file."""
        self._file, self._stopwatch, self._lock = workdir / GOODPUT, stopwatch, threading.Lock()
        lines = read_bytes(self._file, MAX_BYTES).decode(errors="replace").splitlines() if self._file.exists() else []
        self._earlier = "".join(f"{line}\n" for line in lines)
        rows = [row for row in map(_parse, lines) if row]
        self._start = 1 + max((row["start"] for row in rows), default=-1)
        self._last_step = max((row["last_step"] for row in rows), default=0)
        self._has_ended = False

    def write(self, ending: str = "running", stall: Stall | None = None) -> None:
        """Write the rows of all starts. The time of a `stall` counts for the phase "stalled". Raises OSError.

        Any thread may write. The rows of the later reading stay, and those with an ending are the last.
        """
        with self._lock:
            reading = self._stopwatch.read()
            if self._has_ended or (reading.step is None and not stall):
                return
            first, last = (step if step is not None else self._last_step for step in (reading.first_step, reading.step))
            seconds = {phase: round(number, 3) for phase, number in seconds_by_phase(reading, stall).items()}
            began = round(self._stopwatch.began, 3)
            of_start = {"began": began, "ended": round(began + sum(seconds.values()), 3)}
            of_start |= {"first_step": first, "last_step": last, "ending": ending}
            rows = [{"start": self._start, "phase": phase, "seconds": seconds[phase]} | of_start for phase in seconds]
            text = self._earlier + "".join(f"{json_text(row)}\n" for row in rows)
            with write_whole(self._file) as temporary:
                temporary.write_text(text)
            self._has_ended = ending != "running"


def seconds_by_phase(reading: Reading, stall: Stall | None) -> dict[str, float]:
    """Return the seconds of a start by phase. Waiting for the devices is training. A stall is taken out of its phase."""
    seconds = dict(reading.seconds)
    if stall:
        stalled = min(stall.seconds, seconds[stall.phase])
        seconds[stall.phase] -= stalled
        seconds[STALLED] = stalled
    if DEVICE in seconds:
        seconds["training"] = seconds.get("training", 0.0) + seconds.pop(DEVICE)
    return seconds


def _parse(line: str) -> dict | None:
    """Return the row of a line, or None for one that this program did not write."""
    try:
        row = json.loads(line)
        return row if isinstance(row["start"], int) and isinstance(row["last_step"], int) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
