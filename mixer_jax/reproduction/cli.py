"""The command line of `python -m mixer_jax reproduce`: its options, and the function that runs it."""

import argparse
from pathlib import Path

from mixer_jax import app
from mixer_jax.reproduction.paper.exhibits import EXHIBITS
from mixer_jax.text_table import print_figures


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register the command `reproduce`."""
    command = commands.add_parser(
        "reproduce", help="show a table or figure of the paper: its figures, ours, what is left and why"
    )
    command.add_argument("exhibit", choices=EXHIBITS, help="the table or figure of arXiv 2105.01601")
    command.add_argument(
        "--rows", default="*", metavar="PATTERN", help="rows to show, such as 'Mixer-*' or 'ImageNet-21k: *448*' (default: all)"
    )
    command.add_argument("--columns", default="", metavar="A,B", help="columns to show, such as imagenet,real (default: all)")
    command.add_argument("--workdir", type=app.local_path, metavar="DIR", help="folder that has our runs (docs/reproduction.md)")
    command.add_argument("--json", action="store_true", help="print one JSON object, with the command of each run")
    command.set_defaults(tool=reproduce)


def reproduce(arguments: argparse.Namespace) -> None:
    """Show an exhibit."""
    from mixer_jax.reproduction import show  # This import is slow, because it imports JAX.

    columns = [column.strip() for column in arguments.columns.split(",") if column.strip()]
    workdir = Path(arguments.workdir) if arguments.workdir else None
    figures = show.figures_of(arguments.exhibit, arguments.rows, columns, workdir)
    print_figures(figures, arguments.json, show.format_exhibit)
