"""Runs under `python -m mixer_jax supervise`: what is started again, and what is not."""

import os
import signal
import time
from pathlib import Path

from programs import CONFIG, start_python

from benchmarks.chaos.kills import OnDisk
from benchmarks.chaos.trials import SHAPE, Broken, Numbers, Trials, cut_short, end_of, wait_until
from mixer_jax.endings import TO_MEND, TRY_AGAIN

STARTS = 3  # The budget: so many starts without a newer checkpoint.


def _supervise(trials: Trials, workdir: Path, *flags: str, **variables: str):
    """Start a supervisor of train.py."""
    command = ["-m", "mixer_jax", "supervise", "--", "train.py", CONFIG, f"--workdir={workdir}", *SHAPE, *flags]
    return trials.started(start_python(command, 2, **trials.variables | variables))


def _starts(workdir: Path) -> int:
    """Return how often the supervisor of a run has started it: there is a log of each start."""
    return len(list((workdir / "logs").glob("*.log")))


def crash(trials: Trials) -> Numbers:
    """Supervise a program that fails at each start, because the device that it asks for is missing."""
    workdir = trials.folder / "run"
    supervisor = _supervise(trials, workdir, JAX_PLATFORMS="tpu")
    said = end_of(supervisor, TRY_AGAIN)
    if _starts(workdir) != STARTS:
        raise Broken(f"{_starts(workdir)} starts:\n{said}")
    return {"starts": STARTS}


def mistake(trials: Trials) -> Numbers:
    """Supervise a program with an option that does not exist."""
    workdir = trials.folder / "run"
    said = end_of(_supervise(trials, workdir, "--config.no_such_option=1"), TO_MEND)
    if _starts(workdir) > 1:
        raise Broken(f"{_starts(workdir)} starts:\n{said}")
    return {"starts": 1}


def kill_supervised(trials: Trials) -> Numbers:
    """Kill the program under one supervisor again and again, each time after it has saved a step more."""
    reference, run, killed = trials.references.get(), OnDisk(trials.folder / "run"), 0
    supervisor = _supervise(trials, Path(run.workdir))
    while killed < trials.count:
        before = run.committed()
        if not wait_until(lambda before=before: run.committed() - before, supervisor):
            raise Broken(f"no step was saved after {killed} kills:\n{cut_short(supervisor)}")
        time.sleep(trials.random.uniform(0, 0.2))
        os.kill(int(run.owner().split()[1]), signal.SIGKILL)
        killed += 1
    said = end_of(supervisor)
    run.check(reference)
    if _starts(Path(run.workdir)) != killed + 1:
        raise Broken(f"{killed} kills and {_starts(Path(run.workdir))} starts:\n{said}")
    return {"starts": killed + 1}
