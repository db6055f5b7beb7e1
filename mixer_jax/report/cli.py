"""The commands `python -m mixer_jax report` and `python -m mixer_jax demo`: their options, and the functions that they call."""

import argparse
import contextlib
from pathlib import Path

from mixer_jax import app
from mixer_jax.bucket import is_in_bucket
from mixer_jax.mirror import local_files
from mixer_jax.pages.page import check_installed


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `report`, and `demo`, which ends with a report."""
    command = commands.add_parser("demo", help="pre-train, fine-tune and evaluate on small data; write an HTML page about it")
    command.add_argument("--workdir", type=app.local_path, default="runs/demo", help="folder for the runs and for report.html")
    command.set_defaults(tool=demo)

    command = commands.add_parser("report", help="write one HTML page about one or more runs")
    command.add_argument("runs", nargs="+", metavar="RUN", help="a folder that train.py wrote, or gs://BUCKET/RUN")
    command.add_argument(
        "--out",
        type=app.local_path,
        help="the file of the page (default: report.html in the folder of the run, or around several; here for runs in a bucket)",
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
    from mixer_jax.report.page import PAGE, report_runs  # This import is slow, because it imports JAX.

    with contextlib.ExitStack() as copies:
        folders = [copies.enter_context(local_files(run)) for run in arguments.runs]
        here = PAGE if any(map(is_in_bucket, arguments.runs)) else None
        out = report_runs(folders, arguments.out or here, pictures=arguments.pictures)
    print(out)
