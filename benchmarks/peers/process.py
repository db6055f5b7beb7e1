"""A process of another Python, with libraries that we do not have, which is asked and answers in lines of JSON."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from mixer_jax.errors import UserError

ROOT = Path(__file__).parents[2]


class Peer(NamedTuple):
    ready: dict  # what it said first
    ask: Callable[[dict], dict]
    process_id: int


@contextmanager
def peer(python: str, runs: str, target: str, arguments: list[str], **environment: str) -> Iterator[Peer]:
    """benchmarks/peers/RUNS.py, started by a `python` in whose environment `make TARGET` puts what it needs.

    Raises UserError where it cannot be started, or ends before it answers.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = _start([python, "-m", f"benchmarks.peers.{runs}", *arguments], environment, errors, target)

        def answer() -> dict:
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                last = (errors.read().strip() or "no message").splitlines()[-1]
                raise UserError(f"{python} does not run {runs}: {last}. `make {target}` makes one that does.")
            return json.loads(line)

        def ask(question: dict) -> dict:
            with suppress(BrokenPipeError):  # then there is no answer either
                print(json.dumps(question), file=process.stdin, flush=True)
            return answer()

        try:
            yield Peer(answer(), ask, process.pid)
        finally:
            process.kill()
            process.communicate()


def _start(command: list[str], environment: dict[str, str], errors: IO, target: str) -> subprocess.Popen:
    path = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), str(ROOT)]))
    try:
        return subprocess.Popen(
            command, env=os.environ | environment | {"PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(
            f"--beside-python={command[0]} cannot be run: {error.strerror}. `make {target}` makes one that can."
        ) from error
