"""The supervised program as a process: it is started, sent signals and waited for, and its output is copied."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TextIO

from mixer_jax.supervision import leash
from mixer_jax.supervision.log import Log
from mixer_jax.supervision.signs import VARIABLE, listen, make_pipe
from mixer_jax.supervision.terminal import write_all

CHUNK_BYTES = 2**16
LAST_OUTPUT_SECONDS = 2.0  # Wait this long for the rest of the output. A process that has left the group may keep the pipe open.


class Child:
    """A program in a session and process group of its own, so that it gets no signal from the terminal.

    What it prints goes to the standard output and error of this process as it comes, and to the log. It sees no terminal. On
    Linux it is killed when this process ends.
    """

    def __init__(self, command: list[str], log: Log, max_silence_seconds: float, end_silence: Callable[["Child"], None]):
        """Start the program. Call this in the main thread: Linux kills the program when the thread ends that started it.

        Args:
          command: The program and its arguments.
          log: Gets what the program prints.
          max_silence_seconds: The longest time between two signs of life (signs.py). 0: no bound.
          end_silence: A thread calls it with this object if that time has passed.
        """
        self._is_ended, self._lock = False, threading.RLock()  # Handlers of signals call `send` too.
        reading, writing, pipe = make_pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(Path(leash.__file__)), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[writing],
                # Without the first, Python would hold back what it prints to a pipe.
                env=os.environ | {"PYTHONUNBUFFERED": "1", VARIABLE: pipe},
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        threading.Thread(target=listen, args=(reading, max_silence_seconds, lambda: end_silence(self)), daemon=True).start()
        streams = ((self._process.stdout, sys.__stdout__), (self._process.stderr, sys.__stderr__))
        self._copiers = [threading.Thread(target=_copy, args=(*ends, log), daemon=True) for ends in streams]
        for copier in self._copiers:
            copier.start()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program and to the processes that it has started, as a terminal would."""
        with self._lock:
            if not self._is_ended:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)

    def wait(self) -> int:
        """Wait for the end of the program, kill what it has left running, and return its exit code, or -N after signal N."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)  # Until `wait` below, its number belongs to nobody else.
        with self._lock:
            self.send(signal.SIGKILL)
            self._is_ended = True
        code = self._process.wait()
        for copier in self._copiers:
            copier.join(LAST_OUTPUT_SECONDS)
        return code


def _copy(pipe: BinaryIO, terminal: TextIO | None, log: Log) -> None:
    """Copy what comes from a pipe to a terminal at once, and to the log line by line, until the pipe ends.

    Each write to the log ends with a newline, because other threads write it too. So a line of more than CHUNK_BYTES is cut.
    """
    line = b""
    with pipe:
        while text := os.read(pipe.fileno(), CHUNK_BYTES):
            write_all(terminal, text)
            lines, end, line = (line + text).rpartition(b"\n")
            log.write(lines + end)
            if len(line) > CHUNK_BYTES:
                log.write(line + b"\n")
                line = b""
    if line:
        log.write(line + b"\n")
