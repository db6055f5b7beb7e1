"""The command line of `python -m mixer_jax reproduce`: its options, and the function that runs it."""

import argparse
import sys
from pathlib import Path

from mixer_jax.bucket import is_in_bucket
from mixer_jax.errors import UserError
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
        type=bounded("> 0", float),
        metavar="CORE_DAYS",
        help="with --run or --commands: the cheapest cells that fit into so many TPU-v3 core-days, by the estimates",
    )
    command.add_argument("--data-locations", default="", metavar="FILE", help="where data sets lie (docs/data.md)")
    add_actions(command)
    command.set_defaults(tool=reproduce, config=None)  # So options of all runs may follow: --config.a=VALUE.


def reproduce(arguments: argparse.Namespace) -> None:
    """Show an exhibit, or run what is left of it."""
    from mixer_jax.reproduction import show, working  # These imports are slow, because they import JAX.
    from mixer_jax.sweep.written import write

    if (arguments.run or arguments.commands) and not arguments.workdir:
        raise UserError("Name the folder of the runs: --workdir=DIR.")
    is_shown = not (arguments.run or arguments.commands)
    if is_shown and arguments.workdir and not is_in_bucket(arguments.workdir) and not Path(arguments.workdir).is_dir():
        raise UserError(
            f"There is no folder {arguments.workdir}: name the one that has the folders of runs, or leave --workdir out."
        )
    columns = [column.strip() for column in arguments.columns.split(",") if column.strip()]
    chosen = (arguments.exhibit, arguments.rows, columns, _setup(arguments))
    plan = None if is_shown else working.make_plan(*chosen, arguments.budget)
    if plan:
        for label, reason in plan.left:
            print(f"Not run: {label}. {reason}", file=sys.stderr)
    if plan and arguments.commands:
        text = write(working.next_jobs(plan), arguments.commands)
        print(text, end="\n" if text else "", flush=True)
        return
    if plan:
        working.work(plan)
    print_figures(show.figures_of(*chosen), arguments.json, show.format_exhibit)


def _setup(arguments: argparse.Namespace) -> Setup:
    where = {"workdir": arguments.workdir.rstrip("/"), "has_runs": True} if arguments.workdir else {}
    options = {name: getattr(arguments, name) for name in ("start", "seeds", "data_locations")}
    return Setup(**where, **options, flags=tuple(arguments.overrides))
