"""The commands `python -m mixer_jax report` and `python -m mixer_jax demo`: their options, and the functions that they call."""

import argparse
from pathlib import Path

from mixer_jax import app
from mixer_jax.pages.page import check_installed


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `report`, and `demo`, which ends with a report."""
    command = commands.add_parser("demo", help="pre-train, fine-tune and evaluate on small data; write an HTML page about it")
    command.add_argument("--workdir", type=app.local_path, default="runs/demo", help="folder for the runs and for report.html")
    command.set_defaults(tool=demo)

    command = commands.add_parser("report", help="write one HTML page about one or more runs")
    command.add_argument("runs", nargs="+", type=app.local_path, metavar="RUN", help="a folder that train.py wrote")
    command.add_argument(
        "--out",
        type=app.local_path,
        help="the file of the page (default: report.html in the folder of the run, or around several)",
    )
    command.add_argument("--pictures", action="store_true", help="open the data that the runs' configs name, and show images")
    command.set_defaults(tool=report)


def demo(arguments: argparse.Namespace) -> None:
    """Run the demo."""
    from mixer_jax.report.demo import run_demo  # This import is slow, because it imports JAX.

    run_demo(Path(arguments.workdir))


def report(arguments: argparse.Namespace) -> None:
    """Write a page about runs and print its path."""
    check_installed()
    from mixer_jax.report.page import report_runs  # This import is slow, because it imports JAX.

    out = report_runs([Path(run) for run in arguments.runs], arguments.out, pictures=arguments.pictures)
    print(out)
