"""The command `python -m mixer_jax predict`: its options, and the function that it calls."""

import argparse

from mixer_jax import app
from mixer_jax.checkpoints.cli import WEIGHTS


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `predict`."""
    command = commands.add_parser("predict", help="print the most likely classes of image files, or write them to a CSV file")
    command.add_argument("weights", help=WEIGHTS)
    command.add_argument(
        "paths",
        nargs="+",
        type=app.local_path,
        metavar="FOLDER_OR_FILE",
        help="images, and folders that hold images at any depth",
    )
    command.add_argument(
        "--out",
        type=app.local_path,
        default="",
        help="CSV file to make, with columns file, class_1, probability_1, ...; if not given, a table is printed",
    )
    command.set_defaults(tool=predict)


def predict(arguments: argparse.Namespace) -> None:
    """Write or print the most likely classes of images."""
    from mixer_jax.evaluation import predictions  # Imported here because it imports JAX, which is slow to import.

    predictions.predict(arguments.weights, arguments.paths, arguments.out)
