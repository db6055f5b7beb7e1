"""The files of a launch on SLURM: a script for sbatch, and the code."""

import shlex

from mixer_jax.endings import STOPPED
from mixer_jax.launch.bundle import Bundle
from mixer_jax.launch.commands import Moment, Run, Step, Write, code_variables, record_steps
from mixer_jax.launch.request import NUMBER_OF_RUN, Request

BUNDLE = "bundle.tar"
JOB = '"$SLURM_JOB_ID"'
# One run of an array. The number of its own job may be that of the array too, by which all runs would be requeued.
JOB_OF_ARRAY = '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'
TASK_ID = '"$SLURM_ARRAY_TASK_ID"'
WARNING_SECONDS = 120  # From SIGTERM to the end of the time that the scheduler allows.
SUPERVISOR_GRACE_SECONDS = 60


def slurm_steps(request: Request, bundle: Bundle, moment: Moment, folder: str) -> list[Step]:
    """Return the steps that write the files and hand the job over with sbatch, or that only write them to a `folder`."""
    target = folder or request.folder
    steps: list[Step] = [
        *record_steps(request, bundle, moment, is_local=bool(folder)),
        Write(f"{target}/{BUNDLE}", bundle.content),
        Write(f"{target}/{request.name}.sbatch", script_text(request, bundle).encode()),
    ]
    return steps if folder else [*steps, *(Run(command) for command in slurm_commands(request, folder))]


def slurm_commands(request: Request, folder: str) -> list[list[str]]:
    """Return the commands that hand the job over. The files in `folder` go to the launch's folder first."""
    copy = [["mkdir", "-p", request.folder], ["cp", "-r", f"{folder}/.", request.folder]] if folder else []
    return [*copy, ["sbatch", f"{request.folder}/{request.name}.sbatch"]]


def script_text(request: Request, bundle: Bundle) -> str:
    """Return the script of a job.

    With several nodes, each GPU has a process of its own, because JAX gives a process of SLURM the GPU of its local number.
    """
    num_tasks = max(1, request.gpus) if request.nodes > 1 else 1
    directives = {
        "job-name": request.name,
        "nodes": request.nodes,
        "ntasks-per-node": num_tasks,
        **({"gpus-per-node": request.gpus} if request.gpus else {}),
        **({"array": f"0-{request.runs - 1}"} if request.runs > 1 else {}),
        "time": round(request.max_hours * 60) or 1,
        "signal": f"TERM@{WARNING_SECONDS}",
        "output": f"{request.root}/launches/{request.name}/" + ("%A-%a.log" if request.runs > 1 else "%j.log"),
    }
    flags = [*(f"--{name}={value}" for name, value in directives.items()), "--requeue", "--open-mode=append", *request.flags]
    env = code_variables(bundle) | dict(request.env)
    program = [request.python, "-m", "mixer_jax", "supervise", f"--grace={SUPERVISOR_GRACE_SECONDS}", "--", *request.command]
    return TEMPLATE.format(
        name=request.name,
        directives="\n".join(f"#SBATCH {flag}" for flag in flags),
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        bundle=shlex.quote(f"{request.folder}/{BUNDLE}"),
        code=shlex.quote(f"{request.root}/code/{bundle.digest[:16]}"),
        seconds=round(request.max_hours * 3600),
        deadline=shlex.quote(f"{request.folder}/deadline-") + "$SLURM_JOB_ID",
        words=" ".join(map(_quote, program)),
        stopped=STOPPED,
        job=JOB_OF_ARRAY if request.runs > 1 else JOB,
    )


def _quote(word: str) -> str:
    """Return a word for the shell, with the number of the run in the place of NUMBER_OF_RUN."""
    return TASK_ID.join(shlex.quote(part) if part else "" for part in word.split(NUMBER_OF_RUN))


TEMPLATE = """#!/bin/bash
# The launch {name} of mixer_jax. `sbatch` takes this file.
{directives}
set -uo pipefail
{exports}

code={code}
if [ ! -d "$code" ]; then # Several jobs may unpack the same code: one of them wins.
  mkdir -p "${{code%/*}}" && new=$(mktemp -d "$code.XXXXXX") && tar -xf {bundle} -C "$new" || exit 1
  mv -T "$new" "$code" 2>/dev/null || rm -rf "$new"
fi
cd "$code" || exit 1

# The hours count from the first start, also while the job waits to be started again.
deadline={deadline}
now=$(date +%s)
[ -s "$deadline" ] || echo $((now + {seconds})) > "$deadline"
left=$(($(cat "$deadline") - now))
if [ "$left" -le 0 ]; then echo "the hours are used up"; exit 2; fi

# A node that has saved must not end the others before they have: they end by themselves.
srun --kill-on-bad-exit=0 timeout --foreground --preserve-status --signal=TERM $((left + 1)) \\
  {words}
rc=$?
echo "srun ended with $rc"
if [ $rc = {stopped} ] && [ "$(date +%s)" -lt "$(cat "$deadline")" ]; then # stopped and saved: it goes on when there is room
  scontrol requeue {job}
fi
exit $rc
"""
