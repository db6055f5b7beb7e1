"""The commands `python -m mixer_jax digest`, `convert` and `weights`: their options and the functions that they call."""

import argparse

from mixer_jax import app

WEIGHTS = (
    "a run's folder or gs://BUCKET/RUN, its checkpoints/STEP or best, a .npz or .safetensors file, an index of several "
    "(model.safetensors.index.json) or its folder, released:NAME (`weights list` has the names), hf://OWNER/NAME[/FILE] or "
    "SCHEME://BUCKET/FILE; FILE#PREFIX for the parameters under a prefix"
)


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register the commands that read and write weights."""
    command = commands.add_parser("digest", help="print the SHA-256 of a checkpoint's parameters, as results.json has it")
    command.add_argument("weights", help=WEIGHTS)
    command.set_defaults(tool=digest)

    command = commands.add_parser("convert", help="convert weights to another format, and compare both")
    command.add_argument("--from", required=True, dest="source", metavar="A", help=WEIGHTS)
    command.add_argument(
        "--to",
        required=True,
        type=app.local_path,
        dest="target",
        metavar="B",
        help="FILE.npz, FILE.safetensors or a new run's folder",
    )
    command.add_argument(
        "--format", help="checkpoint format: released (default of .npz), timm (default of .safetensors), transformers, internal"
    )
    command.add_argument("--layout", dest="format", action=app.OldFlag)
    command.set_defaults(tool=convert)

    command = commands.add_parser("weights", help="list the released weights, or verify a file of weights")
    command = command.add_subparsers(required=True)
    command.add_parser("list", help="list the four released Mixers").set_defaults(tool=list_weights)
    command = command.add_parser("verify", help="check the structure, shapes, values and digest of a file, and name its model")
    command.add_argument("weights", help=WEIGHTS)
    command.add_argument("--sha256", default="", help="the SHA-256 that the file must have, if you know it")
    command.set_defaults(tool=verify_weights)


# The functions below import heavy libraries (JAX, Orbax) when they are called, so that other commands start quickly.


def digest(arguments: argparse.Namespace) -> None:
    """Print the SHA-256 of the parameters of `arguments.weights`."""
    from mixer_jax.checkpoints.digest import params_sha256
    from mixer_jax.checkpoints.weights import load_weights

    print(params_sha256(load_weights(arguments.weights).arrays))


def convert(arguments: argparse.Namespace) -> None:
    """Convert `arguments.source` to `arguments.target`, and print how the two compare."""
    from mixer_jax.checkpoints import weights

    weights.convert(arguments.source, arguments.target, arguments.format)


def list_weights(arguments: argparse.Namespace) -> None:
    """Print the table of the released weights."""
    from mixer_jax.checkpoints.released import list_released

    print(list_released())


def verify_weights(arguments: argparse.Namespace) -> None:
    """Check the weights of `arguments.weights`, and print which model they are and how to prepare its images."""
    from mixer_jax.checkpoints.verification import verify

    print(verify(arguments.weights, arguments.sha256))
