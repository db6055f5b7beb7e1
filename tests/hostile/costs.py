"""What it costs to read a file or folder: `costs` reads each in a process of its own, as nobody knows what it does to one.

Run as a program, this file imports the readers once and then makes a copy of itself for each path.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TIMEOUT_SECONDS = 60


class Cost(NamedTuple):
    """One reading: how it ended, and what it took beyond what the process had before."""

    ending: str  # the name of the exception, or "read"
    message: str
    seconds: float  # of CPU, in all threads and processes
    mebibytes: float  # of memory held, at the most, by the process or one that it started
    address_mebibytes: float  # of memory asked for, which need not have been touched


def costs(readings: Iterable[tuple[str, Path]]) -> dict[str, Cost]:
    """Return {path: cost} of readings (name of a function of readers.py, path). A hang is ended after TIMEOUT_SECONDS."""
    question = json.dumps([[reader, str(path)] for reader, path in readings])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, __file__], input=question, env=environment, capture_output=True, text=True, check=True)
    return {path: Cost(*cost) for path, cost in map(json.loads, run.stdout.splitlines())}


def _peaks() -> tuple[float, float]:
    """Return the most memory, and the most addresses, that this process ever had, in MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024, int(lines["VmPeak"].split()[0]) / 1024


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _read(reader, path: str) -> Cost:
    before, started = _peaks(), _cpu_seconds()
    try:
        reader(Path(path))
        ending, message = "read", ""
    except BaseException as error:
        ending, message = type(error).__name__, str(error)
    after, seconds = _peaks(), _cpu_seconds() - started
    held = max(after[0] - before[0], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    return Cost(ending, message, seconds, held, after[1] - before[1])


def main() -> None:
    from hostile import readers

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name, path in json.loads(sys.stdin.read()):
        ours, theirs = os.pipe()
        process = os.fork()
        if process == 0:
            import signal

            signal.alarm(TIMEOUT_SECONDS)
            os.write(theirs, json.dumps(_read(getattr(readers, name), path)).encode())
            os._exit(0)
        os.close(theirs)
        with open(ours, "rb") as pipe:
            text = pipe.read()
        status = os.waitpid(process, 0)[1]
        cost = json.loads(text) if text else Cost(f"signal {status}", "", TIMEOUT_SECONDS, 0, 0)
        print(json.dumps([path, cost]), file=answers, flush=True)


if __name__ == "__main__":
    main()
