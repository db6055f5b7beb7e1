"""Clocks that jump: in each process, `time.time` is off by another part of a day in each half second."""

import itertools
import signal
import subprocess
import time

from stand_ins.cloud_storage import CloudStorage

from benchmarks.chaos.kills import InBucket, OnDisk
from benchmarks.chaos.trials import Broken, Numbers, Trials, cut_short, end_at_last, wait_until

# Python runs a file of this name at each start.
SITECUSTOMIZE = """
import os, random, time
true_time = time.time
def offset():
    return random.Random(f"{os.environ['CLOCK_SEED']} {int(2 * time.monotonic())}").uniform(-86400, 86400)
time.time = lambda: true_time() + offset()
time.time_ns = lambda: int(1e9 * time.time())
"""
PLACES = ("on a disk", "two hosts", "in a bucket")


def jump(trials: Trials) -> Numbers:
    """Kill a run whose clock jumps, and start it again with a clock that jumps otherwise."""
    place = PLACES[trials.seed % len(PLACES)]
    (trials.folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    reference = trials.references.get()
    with CloudStorage() as cloud:
        run = InBucket(cloud, "run") if place == "in a bucket" else OnDisk(trials.folder / "run")

        def start(number: int) -> list[subprocess.Popen]:
            def variables_of(host: int) -> dict[str, str]:
                return run.variables | {"PYTHONPATH": str(trials.folder), "CLOCK_SEED": f"{trials.seed} {number} {host}"}

            split = (2, 1) if place == "two hosts" else (1, 2)
            return trials.start_hosts(*split, run.workdir, variables_of)

        killed, numbers = start(0), itertools.count(1)
        if not wait_until(run.committed, killed[0]) and killed[0].poll() is None:
            raise Broken(f"nothing was saved:\n{cut_short(killed[0])}")
        time.sleep(trials.random.uniform(0, reference.seconds / 3))
        for process in killed:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        failed = end_at_last(lambda: start(next(numbers)))
        run.check(reference)
    return {place: 1, "starts that ended with exit code 1": failed}
