"""Makes the tables of the planner's estimates: `python -m benchmarks.planning fit | fine_tuning | throughput | speed | check`."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.planning import pictures, tables
from mixer_jax import app
from mixer_jax.planning.compiler import TIMEOUT_SECONDS, Compiler
from mixer_jax.validation import bounded

HELP = {
    "fit": "plan every pre-training config on several pods (takes hours if nothing is cached)",
    "fine_tuning": "plan the fine-tuning of every row of the paper's tables 2 and 3",
    "throughput": "plan inference, beside the throughput that the paper measured",
    "speed": "plan our model beside the reference model",
    "check": "check that what `fit` recorded still fits and is no slower",
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, text in HELP.items():
        command = commands.add_parser(name, help=text)
        seconds = bounded("in (0, 10^6]", float)
        command.add_argument(
            "--timeout", type=seconds, default=TIMEOUT_SECONDS, metavar="SECONDS", help="limit for compiling one program"
        )
        command.set_defaults(tool=check if name == "check" else record, name=name)
        if name != "check":
            command.add_argument(
                "--out",
                type=Path,
                default=tables.RECORDED,
                metavar="DIR",
                help="folder for the table as JSON and CSV, and for the picture",
            )
            command.add_argument("--json", action="store_true", help="print the table as one JSON object too, on the last line")
    return parser


def record(arguments: argparse.Namespace) -> None:
    """Make the table, write it, and print it as Markdown."""
    with Compiler(arguments.timeout) as compiler:
        table = tables.TABLES[arguments.name](compiler)
    tables.write(arguments.name, table, arguments.out)
    if arguments.name == "throughput":
        pictures.plot(table, arguments.out / "throughput.png")
    print(pictures.format_table(arguments.name, table))
    if arguments.json:
        print(json.dumps(table))


def check(arguments: argparse.Namespace) -> None:
    """Compile the recorded programs again, and print one line for each."""
    with Compiler(arguments.timeout) as compiler:
        for line in tables.check(compiler):
            print(line, flush=True)


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
