"""The commands `python -m mixer_jax launch` and `doctor`: their options, and the functions that they call."""

import argparse
import sys
import time
from collections.abc import Callable

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.launch.request import FLEX_START, NUMBER_OF_RUN, PYTHON, Request
from mixer_jax.validation import bounded

LAUNCHERS = {
    "tpu": "run on virtual machines of Cloud TPU",
    "gke": "run on TPUs of Google Kubernetes Engine, as a JobSet",
    "slurm": "run on nodes of SLURM",
}


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `launch` with its own commands, and `doctor`."""
    launch = commands.add_parser("launch", help="start a run on a TPU pod, GKE or SLURM; follow, stop and delete it")
    verbs = launch.add_subparsers(required=True, metavar="COMMAND")
    for backend, text in LAUNCHERS.items():
        _add_launcher(verbs.add_parser(backend, help=text), backend)
    _add_verb(verbs, "status", status, "show the resource, the hosts' signs of life, the goodput and the hours used")
    logs = _add_verb(verbs, "logs", show_logs, "print the logs of all hosts")
    logs.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    _add_verb(verbs, "stop", stop, "send SIGTERM to the run, and wait until it is saved; the machines stay")
    command = _add_verb(verbs, "delete", delete, "delete the machines and the record; the run's folder stays")
    command.add_argument("--zone", default="", help="delete the TPU machines of this name there, whether recorded or not")
    command.add_argument("--project", default="", help="with --zone: the project that pays")
    _add_verb(verbs, "keep", keep_alive, "ask again for slices that are lost, until the run is done or its hours are used up")

    command = commands.add_parser("doctor", help="check this host before a run: software, devices, bucket, disks, clock")
    command.add_argument("--workdir", default="", metavar="RUN", help="the folder of the run that is to come, which is tried")
    command.add_argument("--distributed", action="store_true", help="compare with the other hosts, on all of which this runs")
    command.add_argument("--coordinator", default="", help="HOST:PORT of process 0, where no cluster tells it")
    command.add_argument("--num-processes", type=bounded("in [1, 10^6]"), default=0, help="with --coordinator: how many")
    command.add_argument("--process-id", type=bounded("in [0, 10^6]"), default=-1, help="with --coordinator: which one this is")
    seconds = bounded("in [1, 10^6]")
    command.add_argument("--join-timeout", type=seconds, default=60, help="seconds to wait for the other hosts (60)")
    command.set_defaults(tool=run_doctor)


def _add_launcher(command: argparse.ArgumentParser, backend: str) -> None:
    """Add the options of `launch tpu`, `launch gke` or `launch slurm`."""
    hours, count = bounded("in [0, 10^4]", float), bounded("in [1, 2^12]")
    command.add_argument("--name", required=True, help="the name of the run and of its machines")
    command.add_argument("--max-hours", type=hours, required=True, help="the run is stopped and saved after this time")
    command.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the run")
    command.add_argument("--python", default=PYTHON, help=f"the Python of the hosts: a version ({PYTHON}) or a path there")
    command.add_argument("--untracked", action="store_true", help="send files that Git does not track too")
    command.add_argument("--dry-run", action="store_true", help="print the steps that would be carried out")
    command.add_argument("words", nargs="+", metavar="-- --config=FILE.py", help="the arguments of train.py")
    flags = {"tpu": "gcloud ... create", "gke": "", "slurm": "sbatch"}[backend]
    if flags:
        command.add_argument("--flag", action="append", default=[], help=f"a further flag of `{flags}`: --flag=--NAME=VALUE")
    if backend == "slurm":
        command.add_argument("--root", required=True, metavar="FOLDER", help="a folder that all nodes share, for runs and code")
        command.add_argument("--nodes", type=count, default=1, help="nodes of a run (1)")
        command.add_argument("--gpus", type=bounded("in [0, 2^6]"), default=0, help="GPUs of a node (0)")
        command.add_argument("--runs", type=count, default=1, help=f"runs; {NUMBER_OF_RUN} in the arguments is the run's number")
        command.set_defaults(python=sys.executable)
    else:
        command.add_argument("--bucket", required=True, dest="root", metavar="gs://BUCKET/PATH", help="for runs and code")
        command.add_argument("--slices", type=count, default=1, help="slices of a run (1)")
        command.add_argument("--run-folder", default="", metavar="gs://BUCKET/RUN", help="for the run, in place of .../runs/NAME")
    if backend == "tpu":
        command.add_argument("--type", required=True, metavar="TYPE", help="such as v3-128, v5litepod-256 or v6e-64")
        command.add_argument("--zone", required=True, help="such as europe-west4-a")
        command.add_argument("--project", required=True, help="the project that pays")
        command.add_argument("--queued", action="store_true", help="queue for the machines, as a queued resource")
        capacity = command.add_mutually_exclusive_group()
        for kind in ("spot", "reserved", FLEX_START):
            capacity.add_argument(
                f"--{kind}", dest="capacity", action="store_const", const=kind, default="", help=f"{kind} machines"
            )
    if backend == "gke":
        command.add_argument("--image", required=True, help="the name of the image in a registry, which is built and pushed")
        command.add_argument("--accelerator", required=True, help="that of the node pool, such as tpu-v6e-slice")
        command.add_argument("--topology", required=True, help="that of the node pool in chips, such as 8x8")
        command.add_argument("--chips-per-host", type=count, default=4, help="chips of a node of the pool (4)")
    if backend != "tpu":
        command.add_argument(
            "--write", type=app.local_path, default="", metavar="DIR", help="only write the files, to this folder"
        )
    command.set_defaults(tool=launch, backend=backend)


def _add_verb(
    verbs: argparse._SubParsersAction, name: str, tool: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    command = verbs.add_parser(name, help=text)
    command.add_argument("name", metavar="NAME", help="the name that was launched")
    command.add_argument("--bucket", dest="root", default="", metavar="URL", help="where it runs, if another machine launched it")
    command.set_defaults(tool=tool)
    return command


def launch(arguments: argparse.Namespace) -> None:
    """Launch a run, or show what that would do."""
    from mixer_jax.launch import launching  # These import what opens buckets, which other tools do without.
    from mixer_jax.launch.request import check

    env = {name: value for name, separator, value in (text.partition("=") for text in arguments.env) if separator}
    if len(env) != len(arguments.env):
        raise UserError(f"--env={' --env='.join(arguments.env)}: write --env=NAME=VALUE, each name once.")
    given = vars(arguments) | {"env": env, "flags": getattr(arguments, "flag", ()), "root": arguments.root.rstrip("/")}
    request = check(Request(**{name: given[name] for name in Request._fields if name in given}))
    launching.launch(request, app.ROOT, arguments.untracked, arguments.dry_run, getattr(arguments, "write", ""))


def status(arguments: argparse.Namespace) -> None:
    """Show how a launch is doing."""
    from mixer_jax.launch import control

    print(control.status(_record(arguments), time.time()))


def show_logs(arguments: argparse.Namespace) -> None:
    """Print the lines of the hosts' logs."""
    from mixer_jax.launch.follow import log_lines

    for workdir in _record(arguments).request.workdirs:
        for line in log_lines(workdir, arguments.follow):
            print(line, flush=True)


def stop(arguments: argparse.Namespace) -> None:
    """Stop a run, and wait until it is saved."""
    from mixer_jax.launch import control

    control.stop(_record(arguments))


def delete(arguments: argparse.Namespace) -> None:
    """Delete the machines of a launch and its record."""
    from mixer_jax.launch import control

    control.delete(arguments.name, arguments.root, arguments.zone, arguments.project)


def keep_alive(arguments: argparse.Namespace) -> None:
    """Watch a launch until its run has ended."""
    from mixer_jax.launch import control

    control.keep_alive(_record(arguments))


def run_doctor(arguments: argparse.Namespace) -> None:
    """Check this host, and exit with 1 if a check fails."""
    from mixer_jax.launch.doctor import examine

    sys.exit(examine(arguments))


def _record(arguments: argparse.Namespace) -> "Record":
    from mixer_jax.launch.record import read_record

    return read_record(arguments.name, arguments.root)
