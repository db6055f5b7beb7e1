"""Launches a run: it observes, lets the pure functions decide, and does or prints what they return."""

import shlex
import time
from pathlib import Path

from mixer_jax.launch import tpu
from mixer_jax.launch.bundle import Bundle, make_bundle
from mixer_jax.launch.carry_out import carry_out
from mixer_jax.launch.commands import Moment, Step, format_steps, launch_steps
from mixer_jax.launch.gke import gke_commands, gke_steps
from mixer_jax.launch.record import state_folder
from mixer_jax.launch.request import Request
from mixer_jax.launch.slurm import slurm_commands, slurm_steps


def launch(request: Request, repository: Path, with_untracked: bool, is_dry: bool, folder: str) -> None:
    """Launch a run, only print the steps of that, or only write the files to a folder. Raises the errors of its parts."""
    bundle = make_bundle(repository, with_untracked)
    moment = Moment(int(time.time()), request.max_hours, state_folder(request.name))
    steps = _steps(request, bundle, moment, folder)
    if not steps:
        print(f"{request.name} is there already with this very job: see `launch status {request.name}`.")
    elif is_dry:
        print(format_steps(steps))
    else:
        carry_out(steps)
        if folder:
            commands = (slurm_commands if request.backend == "slurm" else gke_commands)(request, folder)
            print("Then type:", *(shlex.join(command) for command in commands), sep="\n  ")


def _steps(request: Request, bundle: Bundle, moment: Moment, folder: str) -> list[Step]:
    if request.backend == "gke":
        return gke_steps(request, bundle, moment, folder)
    if request.backend == "slurm":
        return slurm_steps(request, bundle, moment, folder)
    return launch_steps(request, bundle, tpu.observe(request, bundle.digest), moment)
