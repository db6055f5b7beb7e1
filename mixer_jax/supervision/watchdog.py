"""The watchdog: it ends a program in which nothing goes on, with the stacks of all threads, so that it can be started again.

Heartbeats between hosts find hosts that have died. They do not find a host that lives and waits forever: for a disk, for a
collective operation that another host never enters, or for a lock. The watchdog is a thread that reads the stopwatch. Each phase
has a bound of its own on the time in which nothing goes on, an option in config.watchdog; 0 means no bound. The initialization
has none here, because what can wait in it, the meeting of the hosts and their agreements, ends by itself.

    training         the larger of step_seconds and step_medians x the median time of a step so far. The first steps have at least
                     the bound for compiling, because there is no median yet, and devices may still load the program.
    evaluation       evaluation_seconds since the last batch
    any other phase  its option, since the phase began

Only time in which the watchdog itself was awake counts. So a process that was stopped (SIGSTOP) and continued is not at fault.

The watchdog cannot act while C++ code holds Python's global lock. XLA, TensorStore and the image libraries release it while they
wait or compute. A supervisor notices it then, because the watchdog gives no more signs of life (signs.py).
"""

import contextlib
import faulthandler
import functools
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from mixer_jax.endings import STALLED
from mixer_jax.errors import EnvironmentFault, UserError, as_message
from mixer_jax.hosts.joining import warn_hosts
from mixer_jax.stopwatch import DEVICE, Reading, Stopwatch
from mixer_jax.supervision.signs import LEAVING, Signs
from mixer_jax.workdir import Workdir

TICK_SECONDS = 0.5
FIRST_STEPS = 10  # While a start has done fewer steps, there is no median of their time yet.
MEDIAN_OF = 1000  # The median is over so many of the last observations.
WRITE_SECONDS = 5.0  # A stalled program has this long to write its mark.
END_SECONDS = 30.0  # A stalled program has ended after this, whatever does not answer.
BOUNDS = {  # {phase: (what the program does in it, the option that bounds it)}
    "restore": ("restoring the state", "restore_seconds"),
    "compile": ("compiling", "compile_seconds"),
    "training": ("training", "step_seconds"),
    DEVICE: ("waiting for the devices", "step_seconds"),
    "data": ("waiting for data", "data_seconds"),
    "checkpoint": ("saving", "save_seconds"),
    "evaluation": ("evaluating", "evaluation_seconds"),
}


class Stall(NamedTuple):
    """The verdict that nothing goes on.

    Attributes:
      phase: the phase in which nothing goes on.
      seconds: the time since something went on, whether or not the watchdog was awake.
      summary: a sentence that says what stands still, for how long, and the bound.
      advice: what the user may do.
    """

    phase: str
    seconds: float
    summary: str
    advice: str


class Watchdog:
    """A thread that calls `end` when nothing goes on for longer than the bounds allow. Watches while its block runs."""

    def __init__(self, stopwatch: Stopwatch, bounds: ConfigDict, end: Callable[[Stall], None]):
        """Watch the `stopwatch`. `bounds` is config.watchdog."""
        self._stopwatch, self._bounds, self._end = stopwatch, bounds, end
        self._last_tick, self._last = time.monotonic(), stopwatch.read()
        self._still = 0.0  # The seconds, in which the watchdog was awake, since something went on.
        self._step_seconds: deque[float] = deque(maxlen=MEDIAN_OF)  # The mean time of the steps between two ticks.
        self._last_step = self._last
        self._ended, self._signs = threading.Event(), Signs()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._signs.give(LEAVING)

    def _watch(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            self._signs.give()
            if stall := self.check():
                self._end(stall)
                return

    def check(self) -> Stall | None:
        """Read the stopwatch, and return a verdict if nothing has gone on for too long. Call this every TICK_SECONDS."""
        now, reading = time.monotonic(), self._stopwatch.read()
        awake = min(now - self._last_tick, 2 * TICK_SECONDS)
        self._still = self._still + awake if reading.moved == self._last.moved else 0.0
        self._last_tick, self._last = now, reading
        self._observe_steps(reading)
        if reading.phase not in BOUNDS:
            return None
        doing, option = BOUNDS[reading.phase]
        bound = self._bound(option, reading)
        if not bound or self._still <= bound:
            return None
        at_step = "" if reading.step is None else f" after step {reading.step}"
        return Stall(
            reading.phase,
            now - reading.moved,
            f"The run stands still: nothing has gone on for {self._still:.0f} s while {doing}{at_step}, and the bound is "
            f"{bound:.0f} s (config.watchdog.{option}={self._bounds[option]:g}).",
            f"What was saved is kept: the same command goes on. If this was work and no fault, set --config.watchdog.{option} "
            "higher, or to 0 for no bound.",
        )

    def _observe_steps(self, reading: Reading) -> None:
        """Note the mean time of the steps since the last observation, without pauses for data, checkpoints and evaluations."""
        if reading.step is None or reading.step == self._last_step.step:
            return
        if self._last_step.step is not None:
            seconds = _training_seconds(reading) - _training_seconds(self._last_step)
            self._step_seconds.append(seconds / (reading.step - self._last_step.step))
        self._last_step = reading

    def _bound(self, option: str, reading: Reading) -> float:
        """Return the bound by this option in seconds, or 0 for none."""
        seconds = self._bounds[option]
        if option != "step_seconds" or not seconds:
            return seconds
        done = 0 if reading.step is None or reading.first_step is None else reading.step - reading.first_step
        if done < FIRST_STEPS or not self._step_seconds:
            return self._bounds.compile_seconds and max(seconds, self._bounds.compile_seconds)
        return max(seconds, self._bounds.step_medians * statistics.median(self._step_seconds))


def _training_seconds(reading: Reading) -> float:
    return reading.seconds.get("training", 0.0) + reading.seconds.get(DEVICE, 0.0)


def end_stalled(stall: Stall, write: Callable[[str], None]) -> None:
    """Print a verdict and the stacks of all threads, tell the other hosts, and end this process with the exit code STALLED.

    The end comes within END_SECONDS, also if the terminal, the disk, the bucket or the coordinator does not answer.

    Args:
      stall: the verdict.
      write: writes the text that it gets, the message and the stacks, to where it stays. It may take WRITE_SECONDS.
    """
    try:
        with contextlib.suppress(RuntimeError):  # There may be no memory for another thread.
            _in_background(_exit_later)
        message = f"error: {stall.summary} {stall.advice}"
        print(as_message(f"{message} The stacks of all threads follow."), file=sys.stderr, flush=True)
        faulthandler.dump_traceback(sys.stderr)
        writing = _in_background(functools.partial(_write_mark, write, message))
        writing.join(WRITE_SECONDS)
        warn_hosts(STALLED, stall.summary)
    finally:
        _kill_children()
        os._exit(STALLED)


def _kill_children() -> None:
    """Kill the processes that decode images. One that stands still would not notice the end of this process, and stay."""
    with contextlib.suppress(OSError):
        for process in multiprocessing.active_children():
            process.kill()


def _write_mark(write: Callable[[str], None], message: str) -> None:
    """Call `write` with the message and the stacks of all threads, and print its error."""
    try:
        write(f"{message}\n\n{_stacks()}")
    except (EnvironmentFault, UserError, OSError) as error:
        print(as_message(f"These stacks cannot be written to the run's folder: {error}"), file=sys.stderr)


def mark_stalled(run: Workdir, text: str) -> None:
    """Write the text about a stall of this host to WORKDIR/stalled. Raises the errors of `Workdir.write_note`."""
    run.write_note(f"stalled/host-{jax.process_index()}-{int(time.time())}.txt", text)


def _exit_later() -> None:
    time.sleep(END_SECONDS)
    os._exit(STALLED)


def _in_background(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def _stacks() -> str:
    """Return the stacks of all threads."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read().decode(errors="replace")
