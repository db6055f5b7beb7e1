"""The commands `python -m mixer_jax supervise` and `goodput`: their options, and the functions that they call."""

import argparse
import sys

from mixer_jax.storage import json_text
from mixer_jax.supervision.account import account
from mixer_jax.supervision.account_text import account_figures, format_account
from mixer_jax.supervision.program import read_program
from mixer_jax.supervision.recorded_starts import read_starts
from mixer_jax.supervision.restarts import Limits
from mixer_jax.validation import bounded


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
        usage="%(prog)s [--grace S] [--max-starts N] [--max-pause S] [--max-silence S] -- PROGRAM ... --workdir=RUN",
    )
    seconds, default = bounded("in [0, 10^6]", float), Limits()
    command.add_argument(
        "--grace",
        type=seconds,
        metavar="SECONDS",
        default=default.grace_seconds,
        help="time from SIGTERM to SIGKILL (25; spot machines have 30 before they go)",
    )
    command.add_argument(
        "--max-starts",
        type=bounded("in [1, 10^6]"),
        metavar="N",
        default=default.max_starts,
        help="starts in a row that may make no newer checkpoint (3)",
    )
    command.add_argument(
        "--max-pause",
        type=seconds,
        metavar="SECONDS",
        default=default.max_pause_seconds,
        help="the longest pause between two starts (60)",
    )
    command.add_argument(
        "--max-silence",
        type=seconds,
        metavar="SECONDS",
        default=default.max_silence_seconds,
        help="a program that gives no sign of life for so long is killed and started again (300; 0: never)",
    )
    command.add_argument("words", nargs="+", metavar="PROGRAM", help="the program and its arguments")
    command.set_defaults(tool=run_supervisor)


def run_supervisor(arguments: argparse.Namespace) -> None:
    """Supervise the program, and exit with the supervisor's code. Raises UserError for a program that cannot be run."""
    from mixer_jax.supervision.log import Log  # These import what opens buckets, which other tools do without.
    from mixer_jax.supervision.supervise import Supervisor

    program = read_program(arguments.words)
    limits = Limits(arguments.grace, arguments.max_starts, arguments.max_pause, arguments.max_silence)
    log = Log(program.workdir, program.log_name)
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
