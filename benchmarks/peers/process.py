"""Runs a program of another project in a process of its own, with another Python and libraries that we do not have."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mixer_jax.errors import UserError
from mixer_jax.worker_process import WorkerError, WorkerProcess

ROOT = Path(__file__).parents[2]
START = "start"  # The first question. It asks the peer to load what it needs, and to answer with facts about that.
TIMEOUT_SECONDS = 3600  # The limit for one answer. A few steps of a large model take minutes on a slow CPU.


class Peer(NamedTuple):
    """A running peer: a program of another project that we compare with."""

    facts: dict  # The answer to START.
    ask: Callable[[Any], Any]
    process_id: int


@contextmanager
def start_peer(python: str, name: str, target: str, arguments: list[str], **environment: str) -> Iterator[Peer]:
    """Start a peer, and stop it on exit.

    Args:
        python: The Python that runs it.
        name: Its program is benchmarks/peers/NAME.py.
        target: `make TARGET` installs such a Python, for the error messages.
        arguments: Arguments of the program.
        environment: Variables that are added to the environment. PYTHONPATH is put before our own path.

    Raises UserError if the peer cannot be started or does not answer, here and in `ask`.
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
