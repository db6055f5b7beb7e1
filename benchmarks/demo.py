"""Runs the demo in a folder, as `make demo` does, and measures how long it takes: `python -m benchmarks.demo`.

With `--check`, it also compares the accuracies with the recorded ones that docs/getting_started.md shows. They are not exactly
equal, because processors round differently.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import read
from mixer_jax import app
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.report.demo import format_rows, results_rows
from mixer_jax.text_table import print_figures

MAX_DIFFERENCE = 2.0  # The largest difference from a recorded accuracy, in percent, that --check accepts.


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--workdir", type=Path, default="runs/demo", help="folder for the runs; those that are there are used")
    parser.add_argument("--check", action="store_true", help="fail if an accuracy is not near the recorded one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.set_defaults(tool=measure)
    return parser


def measure(arguments: argparse.Namespace) -> None:
    """Run the demo and print its results. Raises UserError if --check finds a difference."""
    large_pages = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    command = [sys.executable, "-m", "mixer_jax", "demo", f"--workdir={arguments.workdir}"]
    start = time.monotonic()
    if subprocess.run(command, env=large_pages, stdout=sys.stderr, check=False).returncode:
        raise EnvironmentFault("The demo failed. Its message is above.")
    figures = {"seconds": round(time.monotonic() - start), "rows": results_rows(arguments.workdir)}
    print_figures(figures, arguments.json, lambda figures: format_rows(figures["rows"]))
    if arguments.check:
        check(figures["rows"], read("demo")["runs"]["demo"]["figures"]["rows"])


def check(rows: list, recorded: list) -> None:
    """Raise UserError if an accuracy differs from the recorded one by more than MAX_DIFFERENCE.

    The row of the difference between two others is not compared.
    """
    pairs = [(now, then) for now, then in zip(rows, recorded, strict=True) if not now[0].startswith(" ")]
    if wrong := [(now, then) for now, then in pairs if abs(_percent(now) - _percent(then)) > MAX_DIFFERENCE]:
        lines = "\n".join(f"{now[0]}, labels per class {now[1]}: {now[2]}, recorded {then[2]}" for now, then in wrong)
        raise UserError(f"The demo's results are not those that are recorded:\n{lines}")


def _percent(row: list) -> float:
    """Return the accuracy of a row of the demo's table, whose third cell is such as "98.3 %" or "89.8 ± 2.0 %"."""
    return float(row[2].split()[0])


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
