"""Prints the table of what a run survives: `python -m benchmarks.chaos`, or some of it with --rows, --trials and --seed."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.chaos.rows import ROWS
from benchmarks.chaos.runner import Result, format_results, run_rows
from benchmarks.chaos.trials import References
from mixer_jax import app
from mixer_jax.errors import EnvironmentFault
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--trials", type=bounded("in [1, 10^6]"), help="of each row, instead of those of the table")
    parser.add_argument("--short", action="store_true", help="the few trials of `make test-all`")
    parser.add_argument("--seed", type=bounded("in [0, 10^9]"), default=0, help="the first unit's seed; the next ones count on")
    parser.add_argument("--lanes", type=bounded("in [1, 64]"), default=2, help="how many runs compute at the same time")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.set_defaults(tool=run)
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Run the rows, and print the table. Raises EnvironmentFault if a trial did not hold."""
    counts = {name: arguments.trials or (ROWS[name].short if arguments.short else ROWS[name].trials) for name in arguments.rows}
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    rows, references = {name: ROWS[name] for name in arguments.rows}, References(folder / "references")
    results = run_rows(rows, counts, arguments.seed, arguments.lanes, folder, references)
    figures = {name: result.figures() for name, result in results.items()}
    print_figures({"rows": figures}, arguments.json, lambda figures: format_results(figures["rows"]))
    check(results)
    shutil.rmtree(folder)


def check(results: dict[str, Result]) -> None:
    """Raise EnvironmentFault that lists all trials that did not hold, with the command that repeats them."""
    failures = [(name, failure) for name, result in results.items() for failure in result.failures]
    if failures:
        lines = [
            f"\n{name}: {failure['reason']}\nAgain: python -m benchmarks.chaos --rows {name} --trials {failure['trials']} "
            f"--seed {failure['seed']}"
            for name, failure in failures
        ]
        raise EnvironmentFault(f"{len(failures)} units of trials did not hold:{''.join(lines)}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # It ends the processes of the trials, as Ctrl-C does.
    sys.exit(app.run_tool(make_parser()))
