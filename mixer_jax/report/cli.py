"""`python -m mixer_jax report | demo`: the options, and what runs for each."""

import argparse
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `report` and `demo`, which ends with a report."""
    command = commands.add_parser("demo", help="pre-train, fine-tune and evaluate on small data; ends with a page")
    command.add_argument("--workdir", default="runs/demo", help="folder of its runs and of report.html")
    command.set_defaults(tool=demo)

    command = commands.add_parser("report", help="one HTML page about one or more runs")
    command.add_argument("runs", nargs="+", metavar="RUN", help="folders that train.py wrote")
    command.add_argument("--out", default="report.html", help="the page")
    command.add_argument("--pictures", action="store_true", help="open the data that the runs' configs name, and show images")
    command.set_defaults(tool=report)


def demo(arguments: argparse.Namespace) -> None:
    """Run the demo."""
    from mixer_jax.report.demo import run_demo  # heavy: JAX

    run_demo(Path(arguments.workdir))


def report(arguments: argparse.Namespace) -> None:
    """Write a page about runs, and print where it is."""
    from mixer_jax.report.page import report_runs  # heavy: JAX

    report_runs([Path(run) for run in arguments.runs], Path(arguments.out), pictures=arguments.pictures)
    print(arguments.out)
