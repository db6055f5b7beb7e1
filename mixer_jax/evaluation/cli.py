"""The commands `python -m mixer_jax predict` and `compare`: their options, and the functions that they call."""

import argparse

from mixer_jax import app
from mixer_jax.checkpoints.cli import WEIGHTS
from mixer_jax.storage import json_text
from mixer_jax.validation import bounded


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `predict` and `compare`."""
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

    command = commands.add_parser("compare", help="tell whether one run is better than another on the same examples")
    command.add_argument("run_a", metavar="RUN_A", help="a folder that train.py or evaluate.py wrote, or gs://BUCKET/RUN")
    command.add_argument("run_b", metavar="RUN_B", help="another one; the difference is its accuracy minus that of RUN_A")
    command.add_argument("--evaluator", metavar="NAME", default="", help="compare for this evaluator only, not for all")
    command.add_argument(
        "--confidence",
        type=bounded("in (0, 1)", float),
        default=0.95,
        help="confidence of the interval; 1 minus it is the level of the test (0.95)",
    )
    command.add_argument(
        "--show",
        type=bounded("in [0, 10^7]"),
        metavar="N",
        default=10,
        help="examples to list that only RUN_A has right, and that only RUN_B has right (10)",
    )
    command.add_argument("--json", action="store_true", help="print one line of JSON with all examples that changed")
    command.set_defaults(tool=compare)


def predict(arguments: argparse.Namespace) -> None:
    """Write or print the most likely classes of images."""
    from mixer_jax.evaluation import predictions  # Imported here because it imports JAX, which is slow to import.

    predictions.predict(arguments.weights, arguments.paths, arguments.out)


def compare(arguments: argparse.Namespace) -> None:
    """Print the comparison of two runs."""
    from mixer_jax.evaluation.comparison import compare_runs  # These imports are slow.
    from mixer_jax.evaluation.comparison_text import comparison_figures, format_comparison

    compared = compare_runs(arguments.run_a, arguments.run_b, arguments.evaluator)
    if arguments.json:
        print(json_text(comparison_figures(compared, arguments.confidence)), flush=True)
    else:
        print(format_comparison(compared, arguments.confidence, arguments.show), flush=True)
