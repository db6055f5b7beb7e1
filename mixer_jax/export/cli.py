"""The command line of `python -m mixer_jax export`: its options, and the function that runs it."""

import argparse
import json
from pathlib import Path

from mixer_jax import app
from mixer_jax.checkpoints.cli import WEIGHTS
from mixer_jax.classes import Names, describe, has_names

PROGRAMS, WEIGHT_FILES = ("stablehlo", "onnx"), ("npz", "safetensors")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register the command `export`."""
    command = commands.add_parser("export", help="write one file for inference: a program, or weights in a format of others")
    command.add_argument("weights", help=WEIGHTS)
    command.add_argument("--format", required=True, choices=[*PROGRAMS, *WEIGHT_FILES])
    command.add_argument(
        "--out",
        type=app.local_path,
        help="the file to write; NAME.FORMAT in the run's folder or beside the weights if not given",
    )
    command.set_defaults(tool=export)


def export(arguments: argparse.Namespace) -> None:
    """Write a program or a file of weights, and print what it holds."""
    from mixer_jax.checkpoints.weights import convert, file_metadata, load_weights, range_note, tree_of  # These import JAX.
    from mixer_jax.export.program import export_program
    from mixer_jax.models.registry import make_model

    out = arguments.out or default_file(arguments.weights, arguments.format)
    if arguments.format in WEIGHT_FILES:
        convert(arguments.weights, out)
        return
    weights = load_weights(arguments.weights)
    model = make_model(weights.model.config(), weights.model.num_classes)
    params, image_size = tree_of(weights.arrays), weights.model.image_size
    metadata = file_metadata(weights) | class_metadata(weights.class_names)
    difference = export_program(model, params, image_size, out, arguments.format, metadata)
    print(f"{arguments.weights} -> {out}: {weights.model}")
    print(f"  largest difference of logits, loaded without this package: {difference:.3g}")
    if note := range_note(weights):
        print(note)


def default_file(weights: str, format: str) -> str:
    """Return the file that is written if --out is not given.

    It stands in the folder of a run, beside a file of weights, or in the current folder if the weights are elsewhere. For a run
    it is NAME.FORMAT, for one of its steps NAME-STEP.FORMAT.
    """
    from mixer_jax.checkpoints.released import is_remote  # These import JAX.
    from mixer_jax.checkpoints.run_paths import locate

    path = Path(weights).expanduser()
    if is_remote(weights) or path.is_file():
        folder = Path() if is_remote(weights) else path.parent
        return str(folder / f"{path.stem}.{format}")
    run, step = locate(weights)
    return str(run / f"{run.name}{'' if step is None else f'-{step}'}.{format}")


def class_metadata(names: Names) -> dict[str, str]:
    """Return metadata with the names of the classes as JSON and, if these are WordNet ids, what they mean in words.

    Classes without names have no metadata.
    """
    if not has_names(names):
        return {}
    words = [describe(name) for name in names]
    return {"class_names": json.dumps(names)} | ({"class_words": json.dumps(words)} if words != list(names) else {})
