"""A bucket that fails at random, or is down for a while."""

import time

from stand_ins.cloud_faults import Down, Fault, LoseAnswer, Refuse
from stand_ins.cloud_storage import CloudStorage

from benchmarks.chaos.kills import InBucket
from benchmarks.chaos.trials import STEPS, Broken, Numbers, Trials, cut_short, end_at_last, end_of, wait_until
from mixer_jax.endings import TRY_AGAIN

SHARE = 0.2
FEW_SAVES = "--config.checkpoint.every.steps=20"  # Most of the requests are those of saves, and each repeats many.
MOMENTS = ("at the start", "in the middle", "at the end")


def fail_at_random(trials: Trials) -> Numbers:
    """Let a fifth of all requests fail: each second run has answers that are lost after the request took effect."""
    fault: Fault = Refuse(share=SHARE, statuses=(429, 503), seed=trials.seed)
    if trials.seed % 2:
        fault = LoseAnswer(share=SHARE, seed=trials.seed)
    with CloudStorage() as cloud:
        run = InBucket(cloud, "run")
        with cloud.failing(fault):
            failed = end_at_last(lambda: [trials.start(run.workdir, FEW_SAVES, **run.variables)])
        run.check(trials.references.get())
    return {"requests that failed": fault.strikes, "starts that ended with exit code 1": failed}


def be_down(trials: Trials) -> Numbers:
    """Let a bucket be down until the run gives up, and start the run again when it is up."""
    moment = MOMENTS[trials.seed % len(MOMENTS)]
    with CloudStorage() as cloud:
        run = InBucket(cloud, "run")
        if moment == "at the start":
            cloud.fail(Down())
        process = trials.start(run.workdir, **run.variables)
        if moment != "at the start":
            step = str(STEPS) if moment == "at the end" else str(trials.random.randrange(5, STEPS // 2, 5))
            if not wait_until(lambda: step in run.unfinished() | run.committed(), process):
                raise Broken(f"step {step} was not saved:\n{cut_short(process)}")
            time.sleep(trials.random.uniform(0, 0.1))
            cloud.fail(Down())
        began = time.monotonic()
        said = end_of(process, TRY_AGAIN)
        seconds = time.monotonic() - began
        if said.count("error: ") != 1 or "Traceback" in said or run.workdir not in said:
            raise Broken(f"one message that names the bucket was expected:\n{said}")
        cloud.heal()
        end_of(trials.start(run.workdir, **run.variables))
        run.check(trials.references.get())
    return {moment: 1, "longest seconds until it gave up": seconds}
