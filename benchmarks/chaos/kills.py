"""Runs that are killed, or asked to stop, at random moments, on a disk and in a bucket."""

import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

from stand_ins.cloud_storage import CloudStorage

from benchmarks.chaos.trials import POLL_SECONDS, STEPS, Broken, Numbers, Reference, Trials, end_of, wait_until
from mixer_jax.endings import DONE, STOPPED
from mixer_jax.lease import EXPIRY_SECONDS

SAVE_SECONDS = 0.3  # About as long as a save takes.


class Storage(Protocol):
    """A run on a disk or in a bucket, as its killer sees it.

    Attributes:
      workdir: What --workdir is.
      variables: What the environment of its processes has besides.
      patience: How long a start may wait for the lease of one that was killed, in seconds.
    """

    workdir: str
    variables: dict[str, str]
    patience: float

    def owner(self) -> str:
        """Return the text that names the owner."""

    def committed(self) -> set[str]:
        """Return the steps that are saved."""

    def unfinished(self) -> set[str]:
        """Return the steps that are being saved."""

    def check(self, reference: Reference) -> None:
        """Compare the finished run with one without a fault. Raises Broken if they differ."""


class OnDisk:
    """A run in a folder."""

    patience = 0.0

    def __init__(self, folder: Path):
        self._folder, self.workdir, self.variables = folder, str(folder), {}

    def owner(self) -> str:
        """Return the text that names the owner."""
        file = self._folder / ".lock"
        return file.read_text() if file.exists() else ""

    def _names(self) -> list[str]:
        checkpoints = self._folder / "checkpoints"
        return os.listdir(checkpoints) if checkpoints.is_dir() else []

    def committed(self) -> set[str]:
        """Return the steps that are saved."""
        return set(filter(str.isdecimal, self._names()))

    def unfinished(self) -> set[str]:
        """Return the steps that are being saved."""
        return {name.split(".")[0] for name in self._names() if not name.isdecimal()}

    def check(self, reference: Reference) -> None:
        """Compare the finished run with one without a fault."""
        reference.check_folder(self._folder)


class InBucket:
    """A run in the stand-in for a bucket."""

    patience = EXPIRY_SECONDS

    def __init__(self, cloud: CloudStorage, name: str):
        self._cloud, self._prefix, self.workdir = cloud, f"runs/{name}/", f"gs://bucket/runs/{name}"
        self.variables = cloud.environment()

    def _objects(self) -> dict[str, bytes]:
        items = list(self._cloud.objects.items())
        return {name.removeprefix(self._prefix): data for (_, name), data in items if name.startswith(self._prefix)}

    def owner(self) -> str:
        """Return the text that names the owner."""
        return self._objects().get(".lease", b"").decode()

    def committed(self) -> set[str]:
        """Return the steps that are saved."""
        return {match[1] for name in self._objects() if (match := re.fullmatch(r"checkpoints/(\d+)/commit_success\.txt", name))}

    def unfinished(self) -> set[str]:
        """Return the steps that are being saved."""
        return {name.split("/")[1] for name in self._objects() if name.startswith("checkpoints/")} - self.committed()

    def check(self, reference: Reference) -> None:
        """Compare the finished run with one without a fault."""
        there = self._objects()
        reference.check(there["results.json"], there["metrics.jsonl"])
        if any(name.startswith("damaged/") for name in there):
            raise Broken("a checkpoint was marked as damaged")
        if ".lease" in there:
            raise Broken("the run has ended, and its lease is still there")


def kill_on_disk(trials: Trials) -> Numbers:
    """Kill runs in folders."""
    return _kill_runs(trials, lambda number: OnDisk(trials.folder / f"run-{number}"))


def kill_in_bucket(trials: Trials) -> Numbers:
    """Kill runs in a bucket."""
    with CloudStorage() as cloud:
        return _kill_runs(trials, lambda number: InBucket(cloud, f"run-{number}"))


def _kill_runs(trials: Trials, open_run) -> Numbers:
    """Kill a run again and again. When one comes to its end before the next kill, check it, and go on with a new one."""
    reference, landed, number = trials.references.get(), Counter(), 0
    run = open_run(number)
    while sum(landed.values()) < trials.count:
        process = trials.start(run.workdir, **run.variables)
        _wait_for_moment(trials, run, process, reference.seconds)
        where = _where(run, process)
        process.kill()
        said = process.communicate()[0]
        if process.returncode == -signal.SIGKILL:
            landed[where] += 1
        elif process.returncode == DONE:
            run.check(reference)
            number += 1
            run = open_run(number)
        else:
            raise Broken(f"a start ended with exit code {process.returncode}:\n{said}")
    end_of(trials.start(run.workdir, **run.variables))
    run.check(reference)
    return dict(landed)


def _wait_for_moment(trials: Trials, run: Storage, process: subprocess.Popen, seconds: float) -> None:
    """Wait for a random moment of a start: of all of it, of what comes after it owns the folder, or of a save, in turns."""
    choice = trials.random.choice(("anywhere", "owner", "save"))
    if choice == "anywhere":
        seconds += run.patience
    else:
        wait_until(lambda: f"process {process.pid} " in run.owner(), process)
    if choice == "save":
        before = run.committed() | run.unfinished()
        saves = trials.random.randint(1, 3)
        wait_until(lambda: len((run.committed() | run.unfinished()) - before) >= saves, process, seconds)
        seconds = SAVE_SECONDS
    deadline = time.monotonic() + trials.random.uniform(0, seconds)
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _where(run: Storage, process: subprocess.Popen) -> str:
    """Return the part of a start that a kill interrupts now. A save that an earlier kill has left counts until it is removed."""
    if f"process {process.pid} " not in run.owner():
        return "before they own the folder"
    if str(STEPS) in run.committed():
        return "after the last step"
    return "while a save is unfinished" if run.unfinished() else "between"


def stop(trials: Trials) -> Numbers:
    """Ask runs to stop by SIGTERM, after their first step and before their last, and let them go on."""
    reference, longest, stopped, number = trials.references.get(), 0.0, 0, 0
    run = OnDisk(trials.folder / "run-0")
    while stopped < trials.count:
        process, before = trials.start(run.workdir), max(map(int, run.committed()), default=0)
        goal = min(before + trials.random.randint(1, 25), max(before + 1, STEPS - 5))
        wait_until(lambda goal=goal, run=run: max(map(int, run.committed()), default=0) >= goal, process)
        time.sleep(trials.random.uniform(0, SAVE_SECONDS))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said = end_of(process, DONE, STOPPED, -signal.SIGTERM if str(STEPS) in run.committed() else STOPPED)
        if process.returncode == STOPPED:
            stopped, longest = stopped + 1, max(longest, time.monotonic() - began)
            saved = re.search(rf"step (\d+) of {STEPS} is saved", said)
            if not saved or saved[1] not in run.committed():
                raise Broken(f"the step that it named is not saved:\n{said}")
        else:
            if process.returncode == DONE:
                run.check(reference)
            number += 1
            run = OnDisk(trials.folder / f"run-{number}")
    end_of(trials.start(run.workdir))
    run.check(reference)
    return {"longest seconds to stop": longest}
