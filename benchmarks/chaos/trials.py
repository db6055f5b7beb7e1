"""What a row of the table is made of: its trials, and the runs without a fault that they are compared with."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from programs import free_port, start, without_timings

from mixer_jax.endings import DONE, TRY_AGAIN

STEPS = 60
SHAPE = (f"--config.total.steps={STEPS}", "--config.batch_size=24")  # 24 images can be split over 1, 2, 3, 4 and 6 devices.
POLL_SECONDS = 0.003
MAX_STARTS = 10  # Of a run that may fail at each.
Numbers = dict[str, float]
"""Figures of some trials by name. Those of several units are added up, but for names that begin with "longest"."""


class Broken(Exception):
    """A trial that did not hold. The text is the reason."""


class Skipped(Exception):
    """A row that cannot be tried on this machine. The text is the reason."""


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        fault: The sentence that says what is done to the runs.
        checked: The sentence that says what must hold.
        run: Makes some trials. It returns figures, and raises an exception if one of the trials does not hold.
        trials: How many trials the table has.
        short: How many trials the short form has.
        unit: How many trials `run` makes in one go. They are repeated together, with one seed.
        at_once: How many units can share a lane, because they mostly wait.
    """

    fault: str
    checked: str
    run: Callable[["Trials"], Numbers]
    trials: int
    short: int
    unit: int = 1
    at_once: int = 1


class Reference(NamedTuple):
    """A run without a fault: its results.json, the lines of its metrics.jsonl, its seconds, and its folder."""

    results: dict
    metrics: list[dict]
    seconds: float
    workdir: Path

    def check(self, results: bytes, metrics: bytes) -> None:
        """Raise Broken unless these contents of results.json and metrics.jsonl are those of this run, bit for bit."""
        ended = json.loads(results)
        for name in ("step", "params_sha256", "evals"):
            if ended[name] != self.results[name]:
                raise Broken(f"{name} is {ended[name]}, and {self.results[name]} without a fault")
        if without_timings(read_lines(metrics)) != self.metrics:
            raise Broken("the lines of metrics.jsonl are not those of a run without a fault")

    def check_folder(self, workdir: Path) -> None:
        """Check a finished run on a disk, and that none of its checkpoints was found damaged."""
        self.check((workdir / "results.json").read_bytes(), (workdir / "metrics.jsonl").read_bytes())
        if (workdir / "damaged").exists():
            raise Broken("a checkpoint was set aside as damaged")


class References:
    """The runs without a fault, each made when it is first asked for. `folder` keeps them, and the compiled programs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._locks: dict[tuple[int, int], threading.Lock] = {}
        self._runs: dict[tuple[int, int], Reference] = {}

    def get(self, processes: int = 1, devices: int = 2) -> Reference:
        """Return the run of so many processes with so many devices each."""
        key = processes, devices
        with self._locks.setdefault(key, threading.Lock()):
            if key not in self._runs:
                self._runs[key] = self._make(processes, devices)
            return self._runs[key]

    def _make(self, processes: int, devices: int) -> Reference:
        """Make the run twice. The first one compiles, and the second one is as fast as a restart. Both must be the same."""
        first, second = (self._run(processes, devices, number) for number in range(2))
        second.check_folder(first.workdir)
        return second

    def _run(self, processes: int, devices: int, number: int) -> Reference:
        began = time.monotonic()
        with Trials(1, 0, self.folder / f"reference-{processes}-{devices}-{number}", self) as trials:
            workdir = trials.folder / "run"
            for process in trials.start_hosts(processes, devices, workdir):
                end_of(process)
        results = json.loads((workdir / "results.json").read_bytes())
        metrics = without_timings(read_lines((workdir / "metrics.jsonl").read_bytes()))
        return Reference(results, metrics, time.monotonic() - began, workdir)


@dataclass
class Trials:
    """Some trials of a row, which are made one after the other in a folder. Processes that they leave are killed at the end.

    Attributes:
        count: How many trials.
        seed: What makes all random choices.
        folder: An empty folder, which is deleted unless a trial does not hold.
        references: The runs without a fault.
    """

    count: int
    seed: int
    folder: Path
    references: References
    _processes: list[subprocess.Popen] = field(default_factory=list)
    _is_over: bool = False

    @cached_property
    def random(self) -> random.Random:
        """The generator of all random choices."""
        return random.Random(self.seed)

    def __enter__(self) -> "Trials":
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.end_processes()
        for process in self._processes:
            with contextlib.suppress(ValueError):  # Its output has been read.
                process.communicate()

    def end_processes(self) -> None:
        """Kill all processes that still run, with what they have started. No more are started. Another thread may call this."""
        self._is_over = True
        for process in list(self._processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def started(self, process: subprocess.Popen) -> subprocess.Popen:
        """Return a process that has just been started, and see to it that it ends with these trials."""
        self._processes.append(process)
        if self._is_over:
            self.end_processes()
            raise Broken("interrupted")
        return process

    def start(self, workdir: Path | str, *flags: str, **options: str) -> subprocess.Popen:
        """Start train.py, as `programs.start` does."""
        return self.started(start(f"--workdir={workdir}", *SHAPE, *flags, **self.variables | options))

    def start_hosts(
        self,
        processes: int,
        devices: int,
        workdir: Path | str,
        variables_of: Callable[[int], dict[str, str]] = lambda host: {},
    ) -> list[subprocess.Popen]:
        """Start the processes of a run, with so many devices each, and these variables in the environment of each."""
        if processes == 1:
            return [self.start(workdir, devices=devices, **variables_of(0))]
        port = free_port()
        flags = [host_flags(port, processes, host) for host in range(processes)]
        return [self.start(workdir, *flags[host], devices=devices, **variables_of(host)) for host in range(processes)]

    @property
    def variables(self) -> dict[str, str]:
        """What the environment of the processes has: all share their compiled programs, as the restarts of a run do."""
        return {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(self.references.folder / "compiled")}


def host_flags(port: int, processes: int, host: int) -> tuple[str, ...]:
    """Return the flags of one of several processes. Process 0 is found at `port`."""
    address = f"--coordinator=localhost:{port}"
    return address, f"--num_processes={processes}", f"--process_id={host}", "--join_timeout=60"


def read_lines(text: bytes) -> list[dict]:
    """Return the lines of metrics.jsonl."""
    return list(map(json.loads, text.splitlines()))


def end_of(process: subprocess.Popen, *codes: int, seconds: float = 300) -> str:
    """Wait until a process has ended, and return what it said. Raise Broken if its exit code is none of `codes`."""
    said = process.communicate(timeout=seconds)[0]
    if process.returncode not in (codes or (DONE,)):
        raise Broken(f"exit code {process.returncode}, and {' or '.join(map(str, codes or (DONE,)))} was expected:\n{said}")
    return said


def cut_short(process: subprocess.Popen) -> str:
    """Kill a process, and return what it said."""
    process.kill()
    return process.communicate()[0]


def end_at_last(start: Callable[[], list[subprocess.Popen]]) -> int:
    """Start the processes of a run again until all end with 0, and return how often one ended with exit code 1 before.

    Raises Broken for another exit code, for an end that is not one message, and after MAX_STARTS starts.
    """
    said = ""
    for failed in range(MAX_STARTS):
        processes = start()
        for process in processes:
            said = end_of(process, DONE, TRY_AGAIN, seconds=1200)
            if process.returncode != DONE and (said.count("error: ") != 1 or "Traceback" in said):
                raise Broken(f"one message was expected:\n{said}")
        if all(process.returncode == DONE for process in processes):
            return failed
    raise Broken(f"{MAX_STARTS} starts were not enough. The last said:\n{said}")


def wait_until(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 200) -> bool:
    """Wait until the condition holds. Return False if the process ends first, or does not come so far within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
