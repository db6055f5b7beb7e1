"""The command line of `python -m mixer_jax reproduce`: its options, and the function that runs it."""

import argparse
import re
import sys
from pathlib import Path

from mixer_jax import app
from mixer_jax.bucket import is_in_bucket
from mixer_jax.checkpoints.cli import WEIGHTS
from mixer_jax.errors import UserError
from mixer_jax.pages.page import check_installed
from mixer_jax.reproduction.paper.exhibits import EXHIBITS
from mixer_jax.reproduction.setup import RELEASED, SCRATCH, SEEDS, Setup
from mixer_jax.sweep.cli import add_actions
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register the command `reproduce`."""
    command = commands.add_parser(
        "reproduce", help="show a table or figure of the paper (its figures, ours, what is left and why), and run what is left"
    )
    command.add_argument("exhibit", choices=EXHIBITS, help="the table or figure of arXiv 2105.01601")
    command.add_argument(
        "--rows", default="*", metavar="PATTERN", help="rows, such as 'Mixer-*' or 'ImageNet-21k: *448*' (default: all)"
    )
    command.add_argument("--columns", default="", metavar="A,B", help="columns, such as imagenet,real (default: all)")
    command.add_argument(
        "--workdir", default="", metavar="DIR", help="the folder of our runs, or gs://BUCKET/FOLDER (docs/reproduction.md)"
    )
    command.add_argument(
        "--out",
        type=app.local_path,
        metavar="FILE.html",
        help="write a page with tables and charts, and print its path (default with --weights: EXHIBIT.html here)",
    )
    add_actions(command)
    _add_options_of_runs(command)
    _add_options_of_drawings(command)
    command.set_defaults(tool=reproduce, config=None)  # So options of all runs may follow: --config.a=VALUE.


def _add_options_of_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--start",
        choices=(RELEASED, SCRATCH),
        default="",
        help="fine-tune the authors' weights, or pre-train first (default: the authors' weights where they released them)",
    )
    command.add_argument(
        "--seeds", type=bounded("in [1, 1000]"), default=SEEDS, help=f"runs with the chosen learning rate ({SEEDS})"
    )
    command.add_argument(
        "--budget",
        type=bounded("in (0, 10^9]", float),
        metavar="CORE_DAYS",
        help="with --run or --commands: the cheapest cells that fit into so many TPU-v3 core-days, by the estimates",
    )
    command.add_argument("--data-locations", default="", metavar="FILE", help="where data sets lie (docs/data.md)")


def _add_options_of_drawings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="WEIGHTS",
        help=f"draw figure5, figure6 or figure7 from these weights; may be given several times: {WEIGHTS}",
    )
    command.add_argument(
        "--layers", type=layer_numbers, metavar="0,1,2", help="token-mixing MLPs to draw (default: those that the figure shows)"
    )


def layer_numbers(text: str) -> list[int]:
    """Return the numbers of layers in a text such as 0,1,2, for argparse's `type=`."""
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers of layers from 0, such as 0,1,2")
    return [int(number) for number in text.split(",")]


def reproduce(arguments: argparse.Namespace) -> None:
    """Show an exhibit as text, JSON or a page, or run what is left of it first."""
    _check(arguments)
    out = arguments.out or (f"{arguments.exhibit}.html" if arguments.weights else None)
    if out:
        check_installed()
    from mixer_jax.reproduction import show, working  # These imports are slow, because they import JAX.
    from mixer_jax.sweep.written import write

    columns = [column.strip() for column in arguments.columns.split(",") if column.strip()]
    chosen = (arguments.exhibit, arguments.rows, columns, _setup(arguments))
    if arguments.run or arguments.commands:
        plan = working.make_plan(*chosen, arguments.budget)
        for label, reason in plan.left:
            print(f"Not run: {label}. {reason}", file=sys.stderr)
        if arguments.commands:
            text = write(working.next_jobs(plan), arguments.commands)
            print(text, end="\n" if text else "", flush=True)
            return
        working.work(plan)
    figures = show.figures_of(*chosen)
    if not out:
        print_figures(figures, arguments.json, show.format_exhibit)
        return
    from mixer_jax.reproduction.page import write_exhibit

    print(write_exhibit(figures, Path(out), arguments.weights, arguments.layers))


def _check(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that do not go together, and for a folder that is not there."""
    runs = arguments.run or arguments.commands
    if runs and not arguments.workdir:
        raise UserError("Name the folder of the runs: --workdir=DIR.")
    if not runs and arguments.workdir and not is_in_bucket(arguments.workdir) and not Path(arguments.workdir).is_dir():
        raise UserError(
            f"There is no folder {arguments.workdir}: name the one that has the folders of runs, or leave --workdir out."
        )
    if arguments.budget and not runs:
        raise UserError("--budget chooses what is run: add --run or --commands.")
    if arguments.layers is not None and not arguments.weights:
        raise UserError("--layers chooses what is drawn from weights: name them with --weights.")
    if (arguments.json or arguments.commands) and (arguments.weights or arguments.out):
        raise UserError("--json and --commands write no page: leave them, or --weights and --out, out.")


def _setup(arguments: argparse.Namespace) -> Setup:
    where = {"workdir": arguments.workdir.rstrip("/"), "has_runs": True} if arguments.workdir else {}
    options = {name: getattr(arguments, name) for name in ("start", "seeds", "data_locations")}
    return Setup(**where, **options, flags=tuple(arguments.overrides))
