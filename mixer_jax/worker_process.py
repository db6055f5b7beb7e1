"""A worker process that answers questions. The process that asks uses `WorkerProcess`, and the worker calls `serve`.

Questions and answers are pickled and sent over standard input and output. Pickle is safe here, because both sides are our own
programs. The worker may run in another Python with other libraries, so this module needs only the standard library.
"""

import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from mixer_jax.errors import UserError

NUM_LOG_LINES = 5  # How many of the last lines of standard error an error quotes, to explain why a worker ended.


class WorkerError(Exception):
    """A worker gave no answer. The text is a predicate, which follows the worker's name in a sentence: "failed. ..."."""


class WorkerLostError(WorkerError):
    """A worker ended or was too late. For example, the system kills processes when memory is short."""


class WorkerProcess:
    """A worker process, as the process that asks sees it. It answers one question at a time, each within `timeout_seconds`."""

    def __init__(self, command: list[str], environment: dict[str, str], timeout_seconds: float):
        """Start `command`, with `environment` added to this process's environment. Raises OSError if it cannot be run."""
        self._timeout_seconds = timeout_seconds
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  The file lives as long as the process.
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

        Raises UserError, with the worker's text, if the answering function raises UserError, WorkerError if that function raises
        anything else, and WorkerLostError if the worker ends or is too late. A lost worker can only be closed.
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
            raise WorkerLostError(f"ended with {self._process.wait()}{self._quoted_log()}") from None
        finally:
            timer.cancel()
        if kind == "refused":
            raise UserError(answer)
        if kind == "failed":
            raise WorkerError(f"failed. {answer}")
        return answer

    def close(self) -> None:
        """Kill the worker, and wait until it has ended."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _quoted_log(self) -> str:
        """Return the last lines that the worker wrote to standard error, for the end of a message."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-NUM_LOG_LINES:]
        return ":\n" + "\n".join(lines) if lines else ""


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer questions with the function `answer` until standard input ends. The worker calls this.

    From here on, everything else that is printed to standard output, by libraries for example, goes to standard error.
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
        except Exception as error:  # Anything that a library raises is sent as the answer.
            reply = "failed", f"{type(error).__name__}: {error}"
        pickle.dump(reply, answers)
        answers.flush()


def bound_memory(num_bytes: int) -> None:
    """Let allocations fail once this process needs `num_bytes` more than it has now. Does nothing on other systems than Linux."""
    if sys.platform != "linux":
        return
    with open("/proc/self/statm") as statm:
        address_space = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + num_bytes, resource.RLIM_INFINITY))
