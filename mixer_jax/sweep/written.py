"""Jobs written for other programs: as lines of JSON, and as an array job of SLURM."""

import shlex
from collections.abc import Sequence

from mixer_jax.endings import STOPPED
from mixer_jax.storage import json_text
from mixer_jax.sweep.job import Job

FORMATS = ("json", "slurm")


def write(jobs: Sequence[Job], form: str) -> str:
    """Return the jobs in one of FORMATS: one line of JSON for each job, or the text of a file for `sbatch`."""
    if form == "slurm":
        return slurm_array(jobs) if jobs else ""
    return "\n".join(json_text({"workdir": job.workdir, "command": ["python", *job.words]}) for job in jobs)


def slurm_array(jobs: Sequence[Job]) -> str:
    """Return a file for `sbatch`: an array job that runs one job in each task, in the folder in which it was handed over.

    A task that SLURM stops saves its run, and is queued again.
    """
    words = "\n".join(f"  {shlex.quote(shlex.join(job.words))}" for job in jobs)
    return ARRAY.format(last=len(jobs) - 1, words=words, stopped=STOPPED)


ARRAY = """#!/bin/bash
#SBATCH --array=0-{last}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
words=(
{words}
)
srun bash -c "exec python -m mixer_jax supervise --grace=60 -- ${{words[$SLURM_ARRAY_TASK_ID]}}"
rc=$?
if [ $rc = {stopped} ]; then scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"; fi
exit $rc
"""
