"""Another project's program in a process of its own: another Python, with libraries that we do not have."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mixer_jax.errors import UserError
from mixer_jax.worker_process import WorkerError, WorkerProcess

ROOT = Path(__file__).parents[2]
START = "start"  # the first question: load what is needed, and say what that showed
TIMEOUT_SECONDS = 3600  # of one answer: a few steps of a large model take minutes on a slow CPU


class Peer(NamedTuple):
    """A peer that runs."""

    facts: dict  # its answer to START
    ask: Callable[[Any], Any]
    process_id: int


@contextmanager
def start_peer(python: str, name: str, target: str, arguments: list[str], **environment: str) -> Iterator[Peer]:
    """Start benchmarks/peers/NAME.py with `python`, in whose environment `make TARGET` puts what it needs.

    Raises UserError where it cannot be started, or does not answer.
    """
    path = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), str(ROOT)]))
    command = [python, "-m", f"benchmarks.peers.{name}", *arguments]
    try:
        worker = WorkerProcess(command, environment | {"PYTHONPATH": path}, TIMEOUT_SECONDS)
    except OSError as error:
        raise UserError(f"--python={python} cannot be run: {error.strerror}. `make {target}` makes one that can.") from error

    def ask(question: Any) -> Any:
        try:
            return worker.ask(question)
        except WorkerError as error:
            last_line = str(error).splitlines()[-1]
            raise UserError(f"{python} does not run {name}: {last_line}. `make {target}` makes one that does.") from None

    with closing(worker):
        yield Peer(ask(START), ask, worker.process_id)
