"""Jobs written for other programs: as lines of JSON, as an array job of SLURM, and as launches on Cloud TPU."""

import hashlib
import shlex
from collections.abc import Sequence

from mixer_jax.bucket import is_in_bucket
from mixer_jax.endings import STOPPED
from mixer_jax.errors import UserError
from mixer_jax.storage import json_text
from mixer_jax.sweep.job import Job

FORMATS = ("json", "slurm", "launch")


def write(jobs: Sequence[Job], form: str) -> str:
    """Return the jobs in one of FORMATS: one line of JSON for each job, a file for `sbatch`, or one for bash.

    Raises UserError if a run on Cloud TPU does not lie in a bucket.
    """
    if form != "json":
        return {"slurm": slurm_array, "launch": launches}[form](jobs) if jobs else ""
    return "\n".join(json_text({"workdir": job.workdir, "command": ["python", *job.words]}) for job in jobs)


def slurm_array(jobs: Sequence[Job]) -> str:
    """Return a file for `sbatch`: an array job that runs one job in each task, in the folder in which it was handed over.

    A task that SLURM stops saves its run, and is queued again.
    """
    words = "\n".join(f"  {shlex.quote(shlex.join(job.words))}" for job in jobs)
    return ARRAY.format(last=len(jobs) - 1, words=words, stopped=STOPPED)


def launches(jobs: Sequence[Job]) -> str:
    """Return a file for bash with a launch on Cloud TPU for each job. Its user sets LAUNCH to the options of all launches."""
    lines = [LAUNCH]
    for job in jobs:
        if not is_in_bucket(job.workdir):
            raise UserError(f"{job.workdir}: runs on Cloud TPU need a folder in a bucket, --workdir=gs://BUCKET/FOLDER.")
        name = f"job-{hashlib.sha256(job.workdir.encode()).hexdigest()[:12]}"
        words = [f"--name={name}", f"--run-folder={job.workdir}", "--", f"--config={job.config}", *job.flags]
        lines.append(f'python -m mixer_jax launch tpu "${{LAUNCH[@]}}" {shlex.join(words)}')
    return "\n".join(lines)


LAUNCH = ': "${LAUNCH:?set it first, such as LAUNCH=(--type=v3-32 --zone=Z --project=P --bucket=gs://BUCKET --max-hours=8)}"'

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
