"""Starts a program, and starts it again when it has ended too early. What breaks a run, such as JAX, is not imported here.

    0     The program is done. So is the supervisor, with 0.
    2     A person must change something. The supervisor ends with 2.
    75    After a SIGTERM that the supervisor has passed on, it ends with 75.
    else  The program is started again, after a pause, unless several starts in a row have made no newer checkpoint. Then the
          supervisor ends with the code of the last one.

After Ctrl-C, which is passed on too, the supervisor ends with the code of the program.
"""

import contextlib
import itertools
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from types import FrameType

from mixer_jax import endings
from mixer_jax.checkpoints.committed_steps import committed_steps
from mixer_jax.errors import EnvironmentFault, UserError, as_message
from mixer_jax.supervision.child import Child
from mixer_jax.supervision.log import Log
from mixer_jax.supervision.program import Program
from mixer_jax.supervision.restarts import FINAL, Budget, Limits, describe, exit_code
from mixer_jax.supervision.terminal import write_all

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
TURN_SECONDS = 0.1
ABORT_SECONDS = 5.0  # A program has this long to print its stacks.


class Supervisor:
    """The supervisor of one program. It lives in the main thread, where Python handles signals."""

    def __init__(self, program: Program, log: Log, limits: Limits):
        self._program, self._log, self._limits = program, log, limits
        self._child: Child | None = None
        self._unsent: deque[signal.Signals] = deque()  # Signals that the program has not been sent yet.
        self._heard: list[signal.Signals] = []

    def run(self) -> int:
        """Start the program as often as needed, and return the exit code of the supervisor."""
        with self._hearing_signals():
            self._log.begin()
            newest = self._newest_step(before=None)
            budget = Budget(self._limits, newest)
            for number in itertools.count(1):
                if self._heard:
                    return self._end_between_starts()
                self._say(f"start {number} of {self._program.name}, {_from_step(newest)}")
                first, code = newest, self._run_once()
                if self._heard or code in FINAL:
                    return self._end(code)
                newest = self._newest_step(before=first)
                pause = budget.spend(newest)
                self._say(f"{self._program.name} {describe(code)} {_progress(first, newest)}; {self._next(budget, pause)}")
                if pause is None:
                    return exit_code(code)
                self._wait(pause)
                self._log.begin()
        raise AssertionError("The loop has no end.")

    def _run_once(self) -> int:
        """Run the program, and return its exit code, or -N after signal N."""
        try:
            self._child = Child(self._program.command, self._log, self._limits.max_silence_seconds, self._end_silence)
        except OSError as error:  # For example, the machine has no memory for another process.
            self._say(f"{self._program.name} cannot be started: {error}")
            return endings.TRY_AGAIN
        self._pass_on()  # What came before it was there.
        code = self._child.wait()
        self._child = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        return code

    def _end_silence(self, child: Child) -> None:
        """End a program that gives no sign of life any more. A thread calls this.

        SIGABRT prints the stacks of its threads, if it can still run. A frozen process gets SIGKILL alone.
        """
        self._say(
            f"{self._program.name} gives no sign of life for {self._limits.max_silence_seconds:g} s: it is frozen, or C++ code "
            f"holds Python's lock. SIGABRT, and SIGKILL after {ABORT_SECONDS:g} s"
        )
        child.send(signal.SIGABRT)
        time.sleep(ABORT_SECONDS)
        child.send(signal.SIGKILL)

    def _wait(self, seconds: float) -> None:
        """Wait before the next start, at most until a signal comes.

        A threading.Event would not do: if a handler sets it while this thread is about to wait for it, both wait for ever.
        """
        deadline = time.monotonic() + seconds
        while not self._heard and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, TURN_SECONDS))

    def _end(self, code: int) -> int:
        """Say how the program ended for good, and return the exit code of the supervisor."""
        self._say(f"{self._program.name} " + ("is done" if code == endings.DONE else describe(code)))
        return exit_code(code) if code in FINAL or signal.SIGTERM not in self._heard else endings.STOPPED

    def _end_between_starts(self) -> int:
        self._say(f"{self._heard[-1].name}: {self._program.name} is not started again")
        return endings.STOPPED if signal.SIGTERM in self._heard else endings.INTERRUPTED

    def _next(self, budget: Budget, pause: float | None) -> str:
        """Return a clause about what follows the end of the program."""
        if pause is not None:
            return f"again in {pause:g} s"
        return (
            f"not again: {budget.failures} starts in a row have made no newer checkpoint. See the end of {self._log.path}, mend "
            "the cause, and start the same command again. If no checkpoint was due, save more often (config.checkpoint.every)."
        )

    def _newest_step(self, before: int | None) -> int | None:
        """Return the newest step that has been saved, or None if there is none, or `before` if that cannot be read."""
        try:
            return max(committed_steps(self._program.workdir), default=None)
        except (OSError, UserError, EnvironmentFault) as error:
            self._say(f"the newest checkpoint cannot be found: {error}")
            return before

    def _say(self, text: str) -> None:
        """Print a line about what happens, and log it."""
        line = f"supervise: {time.strftime('%H:%M:%S')} {as_message(text)}\n".encode(errors="replace")
        write_all(sys.__stderr__, line)
        self._log.write(line)

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in HEARD}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Pass on the first SIGTERM and each Ctrl-C, and SIGKILL when the time of grace is over.

        The time of grace begins with a SIGTERM and with a second Ctrl-C, which asks not to wait any longer.
        """
        name = signal.Signals(number)
        if name is signal.SIGALRM:
            self._say(f"{self._program.name} has not ended within {self._limits.grace_seconds:g} s: SIGKILL")
            self._send(signal.SIGKILL)
            return
        is_again = name in self._heard
        self._heard.append(name)
        if name is signal.SIGTERM and is_again:
            return  # A scheduler may send several. A second one would end the program before it has saved.
        self._send(name)
        if name is signal.SIGTERM or is_again:
            signal.setitimer(signal.ITIMER_REAL, max(self._limits.grace_seconds, 0.001))

    def _send(self, number: signal.Signals) -> None:
        self._unsent.append(number)
        self._pass_on()

    def _pass_on(self) -> None:
        """Send the program what it has not been sent yet. A signal may interrupt this, and its handler calls this too."""
        with contextlib.suppress(IndexError):
            while self._child:
                number = self._unsent.popleft()
                self._child.send(number)
                if number is not signal.SIGKILL:
                    self._say(f"{number.name} is passed on to {self._program.name}")


def _from_step(newest: int | None) -> str:
    return "from the beginning" if newest is None else f"from step {newest}"


def _progress(first: int | None, newest: int | None) -> str:
    """Return how far a start has come that began at step `first`. None stands for no step."""
    if newest is None:
        return "without a checkpoint"
    if newest <= (first or 0):
        return f"without a newer checkpoint than that of step {newest}"
    return f"at step {newest}, {newest - (first or 0)} steps after this start"
