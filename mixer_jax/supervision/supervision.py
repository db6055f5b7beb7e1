"""The supervision of one start of a run: the watchdog, and a thread that writes the account of time and the heartbeat."""

import functools
import sys
import threading
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.parallel import is_writer
from mixer_jax.stopwatch import Stopwatch
from mixer_jax.storage import json_text
from mixer_jax.supervision.goodput import Goodput
from mixer_jax.supervision.heartbeat import heartbeat, heartbeat_name
from mixer_jax.supervision.watchdog import Stall, Watchdog, end_stalled, mark_stalled
from mixer_jax.workdir import Workdir

RECORD_SECONDS = 10.0
JOIN_SECONDS = 5.0  # A write that takes longer does not keep the program from ending.


class Supervision:
    """The watchdog, the account and the heartbeat of this process, while its block runs.

    A file that cannot be written never ends the run: the first error is printed.

    Attributes:
      ending: how the start has ended. It is "failed" after an exception.
    """

    def __init__(self, run: Workdir, stopwatch: Stopwatch, bounds: ConfigDict):
        """Prepare the supervision of this process of `run`. `bounds` is config.watchdog. Only the writer writes the account."""
        self._run, self._stopwatch, self._host = run, stopwatch, jax.process_index()
        self._goodput = Goodput(run.path, stopwatch) if is_writer() else None
        self._watchdog = Watchdog(stopwatch, bounds, functools.partial(_end_stalled, run, self._goodput))
        self._ended, self._is_said = threading.Event(), False
        self._thread = threading.Thread(target=self._keep_recording, daemon=True)
        self.ending = "done"

    def __enter__(self) -> "Supervision":
        self._thread.start()
        self._watchdog.__enter__()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._watchdog.__exit__()
        self._ended.set()
        self._thread.join(JOIN_SECONDS)
        self.write_account("failed" if error else self.ending)

    def write_account(self, ending: str = "running") -> None:
        """Write the account now. Called before each checkpoint, so that a start killed later has the checkpoint's steps in it."""
        if self._goodput:
            self._attempt(functools.partial(self._goodput.write, ending))

    def _keep_recording(self) -> None:
        while not self._ended.is_set():
            self._attempt(self._write_heartbeat)
            self.write_account()
            self._ended.wait(RECORD_SECONDS)

    def _write_heartbeat(self) -> None:
        self._run.write_note(heartbeat_name(self._host), json_text(heartbeat(self._host, self._stopwatch.read())))

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (EnvironmentFault, UserError, OSError) as error:
            if not self._is_said:
                print(f"The run goes on without a record of its time or its heartbeat: {error}", file=sys.stderr)
            self._is_said = True


def _end_stalled(run: Workdir, goodput: Goodput | None, stall: Stall) -> None:
    """End this process by a verdict of the watchdog, with a mark in the run's folder and the account of its time."""

    def write(text: str) -> None:
        mark_stalled(run, text)
        if goodput:
            goodput.write("stalled", stall)
        run.upload()

    end_stalled(stall, write)
