"""`python -m mixer_jax predict`: the options, and what runs."""

import argparse

from mixer_jax.checkpoints.cli import WEIGHTS


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `predict`."""
    command = commands.add_parser("predict", help="the likeliest classes of image files, as CSV or as a table")
    command.add_argument("weights", help=WEIGHTS)
    command.add_argument("paths", nargs="+", metavar="FOLDER_OR_FILE", help="images, and folders of them at any depth")
    command.add_argument("--out", default="", help="a new CSV file: file, class_1, probability_1, ...; without it a table")
    command.set_defaults(tool=predict)


def predict(arguments: argparse.Namespace) -> None:
    """Say what is in images."""
    from mixer_jax.evaluation import predictions  # heavy: JAX

    predictions.predict(arguments.weights, arguments.paths, arguments.out)
