"""A process that is asked and answers: the side that asks is `WorkerProcess`, the side that answers calls `serve`.

Questions and answers are pickled, on standard input and output: both sides are ours. The worker may run in another Python with
other libraries, so this module needs nothing but the standard library.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from mixer_jax.errors import UserError

LAST_WORDS = 5  # lines of standard error that explain why a worker ended


class WorkerError(Exception):
    """A worker gave no answer. The text is a predicate, for a sentence that begins with the worker's name."""


class WorkerLostError(WorkerError):
    """It has ended, or was too late. Where memory is short, for example, the system kills processes."""


class WorkerProcess:
    """A process that answers one question after the other, each within `timeout_seconds`."""

    def __init__(self, command: list[str], environment: dict[str, str], timeout_seconds: float):
        """Start `command` with `environment` added to that of this process. Raises OSError if it cannot be run."""
        self._timeout_seconds = timeout_seconds
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        try:
            self._process = subprocess.Popen(
                command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
        except OSError:
            self._log.close()
            raise
        self.process_id = self._process.pid

    def ask(self, question: Any) -> Any:
        """Return the answer to `question`.

        Raises UserError with the worker's text if the worker refuses, and WorkerError if it fails, ends, or is too late. After
        an end the worker can only be closed.
        """
        is_late = threading.Event()

        def stop_late_worker() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(self._timeout_seconds, stop_late_worker)
        timer.start()
        try:
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()
            kind, answer = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            if is_late.is_set():
                raise WorkerLostError(f"took more than {self._timeout_seconds:g} s") from None
            raise WorkerLostError(f"ended with {self._process.wait()}{self._last_words()}") from None
        finally:
            timer.cancel()
        if kind == "refused":
            raise UserError(answer)
        if kind == "failed":
            raise WorkerError(f"failed. {answer}")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-LAST_WORDS:]
        return ":\n" + "\n".join(lines) if lines else ""


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer questions until standard input ends. Call it in the worker.

    What else is printed to standard output, by libraries for example, goes to standard error from here on.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = "answered", answer(question)
        except UserError as error:
            reply = "refused", str(error)
        except Exception as error:  # whatever a library raises is the answer
            reply = "failed", f"{type(error).__name__}: {error}"
        pickle.dump(reply, answers)
        answers.flush()
