"""The commands `python -m mixer_jax supervise` and `goodput`: their options, and the functions that they call."""

import argparse
import os
import platform
import re
import shutil
import sys
from pathlib import Path

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.storage import json_text
from mixer_jax.supervision.account import account
from mixer_jax.supervision.account_text import account_figures, format_account
from mixer_jax.supervision.recorded_starts import read_starts
from mixer_jax.validation import bounded

PROCESS_IDS = ("JAX_PROCESS_ID", "SLURM_PROCID")  # Variables that tell several processes of one machine apart.


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register the commands `supervise` and `goodput`."""
    add_supervise(commands)
    command = commands.add_parser("goodput", help="show where the wall time of runs went, and the share that was productive")
    command.add_argument("runs", nargs="+", metavar="RUN", help="a folder that train.py wrote, or gs://BUCKET/RUN")
    command.add_argument("--json", action="store_true", help="print one line of JSON for each run instead of tables")
    command.set_defaults(tool=goodput)


def add_supervise(commands: argparse._SubParsersAction) -> None:
    """Register the command `supervise`."""
    command = commands.add_parser(
        "supervise",
        help="run a program such as train.py, and start it again from its last checkpoint if it ends too early",
        usage="%(prog)s [--grace SECONDS] [--max-starts N] [--max-pause SECONDS] -- PROGRAM ... --workdir=RUN",
    )
    seconds = bounded("in [0, 10^6]", float)
    command.add_argument(
        "--grace",
        type=seconds,
        metavar="SECONDS",
        default=25.0,
        help="time from SIGTERM to SIGKILL (25; spot machines have 30 before they go)",
    )
    command.add_argument(
        "--max-starts",
        type=bounded("in [1, 10^6]"),
        metavar="N",
        default=3,
        help="starts in a row that may make no newer checkpoint (3)",
    )
    command.add_argument(
        "--max-pause", type=seconds, metavar="SECONDS", default=60.0, help="the longest pause between two starts (60)"
    )
    command.add_argument("words", nargs="+", metavar="PROGRAM", help="the program and its arguments")
    command.set_defaults(tool=run_supervisor)


def run_supervisor(arguments: argparse.Namespace) -> None:
    """Supervise the program, and exit with the supervisor's code. Raises UserError for a program that cannot be run."""
    from mixer_jax.supervision.log import Log  # These import what opens buckets, which other tools do without.
    from mixer_jax.supervision.restarts import Limits
    from mixer_jax.supervision.supervise import Program, Supervisor

    name, *flags = arguments.words
    workdir = flag_value("workdir", flags)
    if not workdir:
        raise UserError(f"supervise needs the run's folder, among the arguments of {name}: --workdir=RUN.")
    program = Program(Path(name).name, [*find_program(name), *flags], workdir)
    limits = Limits(arguments.grace, arguments.max_starts, arguments.max_pause)
    log = Log(workdir, log_name(flags))
    try:
        code = Supervisor(program, log, limits).run()
    finally:
        log.close()
    sys.exit(code)


def goodput(arguments: argparse.Namespace) -> None:
    """Print the account of the wall time of each run."""
    accounts = {run: account(read_starts(run)) for run in arguments.runs}
    if arguments.json:
        texts = [json_text(account_figures(run, account)) for run, account in accounts.items()]
    else:
        texts = ["\n\n\n".join(format_account(run, account) for run, account in accounts.items())]
    print(*texts, sep="\n", flush=True)


def find_program(name: str) -> list[str]:
    """Return the words that run a program: a file of Python, here or of this repository, or any other program of this machine.

    Raises UserError if there is no such program.
    """
    scripts = [file for file in (Path(name), app.ROOT / name) if name.endswith(".py") and file.is_file()]
    if scripts:
        return [sys.executable, str(scripts[0])]
    if path := shutil.which(name):
        return [path]
    raise UserError(f"There is no program {name}. Write supervise -- train.py --config=FILE.py --workdir=RUN, for example.")


def flag_value(flag: str, words: list[str]) -> str:
    """Return the value of --flag=VALUE or --flag VALUE, the last one if there are several, or "" if there is none."""
    found = re.findall(rf"^--?{flag}[=\n](.+)$", "\n".join(words), re.MULTILINE)
    return found[-1] if found else ""


def log_name(flags: list[str]) -> str:
    """Return the name of this machine, with the number of the process if there is one."""
    numbers = [flag_value("process_id", flags), *(os.environ.get(name, "") for name in PROCESS_IDS)]
    return "-".join([platform.node() or "host", *[number for number in numbers if number][:1]])
