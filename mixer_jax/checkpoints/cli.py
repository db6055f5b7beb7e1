"""`python -m mixer_jax digest | convert | weights`: the options, and what runs for each."""

import argparse

from mixer_jax import app

WEIGHTS = (
    "a run's folder, its checkpoints/STEP or best, a .npz or .safetensors file, an index of several "
    "(model.safetensors.index.json) or its folder, or SCHEME://BUCKET/FILE; FILE#PREFIX for the parameters under a prefix"
)


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register what reads and writes weights."""
    command = commands.add_parser("digest", help="SHA-256 of a checkpoint's parameters, as in results.json")
    command.add_argument("weights", help=WEIGHTS)
    command.set_defaults(tool=digest)

    command = commands.add_parser("convert", help="weights from one format to another; both are then compared")
    command.add_argument("--from", required=True, dest="source", metavar="A", help=WEIGHTS)
    command.add_argument(
        "--to", required=True, dest="target", metavar="B", help="FILE.npz, FILE.safetensors or a new run's folder"
    )
    command.add_argument("--format", help="names in the file: released (usual in .npz), timm (in .safetensors) or internal")
    command.add_argument("--layout", dest="format", action=app.OldFlag)
    command.set_defaults(tool=convert)

    command = commands.add_parser("weights", help="the released weights: which there are, and whether a file is sound")
    command = command.add_subparsers(required=True)
    command.add_parser("list", help="the four released Mixers").set_defaults(tool=list_weights)
    command = command.add_parser("verify", help="structure, shapes, finite values and digest of a file, and which model it is")
    command.add_argument("weights", help=WEIGHTS)
    command.add_argument("--sha256", default="", help="that the file must have, when you know it")
    command.set_defaults(tool=verify_weights)


# What runs is imported there: it is heavy (JAX, Orbax), and a command must be found without it.


def digest(arguments: argparse.Namespace) -> None:
    """Print the digest of parameters."""
    from mixer_jax.checkpoints.digest import params_sha256
    from mixer_jax.checkpoints.weights import load_weights

    print(params_sha256(load_weights(arguments.weights).arrays))


def convert(arguments: argparse.Namespace) -> None:
    """Write weights in another format."""
    from mixer_jax.checkpoints import weights

    weights.convert(arguments.source, arguments.target, arguments.format)


def list_weights(arguments: argparse.Namespace) -> None:
    """Print the table of released weights."""
    from mixer_jax.checkpoints.released import list_released

    print(list_released())


def verify_weights(arguments: argparse.Namespace) -> None:
    """Check weights and print what they are."""
    from mixer_jax.checkpoints.released import verify

    print(verify(arguments.weights, arguments.sha256))
