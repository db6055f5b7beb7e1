"""The command line of `python -m mixer_jax bench step | predict | input`: options, and the functions that run them."""

import argparse
import tempfile
from pathlib import Path

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded

CONFIG = "FILE.py or FILE.py:ARG; --config.NAME=VALUE replaces an option, as in train.py"
MEASURED = {"step": "the training step", "predict": "prediction, as evaluators call it"}
# Benches that have moved to benchmarks/, which holds the programs that make the figures of the docs.
MOVED = {"duplicates": "near_duplicates", "memory": "memory", "surgery": "surgery"}


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register the command `bench` and its subcommands."""
    benches = commands.add_parser("bench", help="measure the speed of training, prediction and input on this machine")
    benches = benches.add_subparsers(required=True, metavar="{step,predict,input}")
    for kind, measured in MEASURED.items():
        command = benches.add_parser(kind, help=f"measure speed, memory and start of {measured}, beside the reference model")
        add_step_options(command)
        program = f"python -m benchmarks.beside_timm {kind} --help"
        command.add_argument("--beside-timm", "--beside-python", action=app.MovedOption, program=program)
        command.set_defaults(tool=bench_step, kind=kind)
    command = benches.add_parser(
        "input", help="measure the speed of every stage between the source and the device, and say whether it is enough"
    )
    add_input_options(command)
    program = "python -m benchmarks.beside_big_vision --help"
    command.add_argument("--beside", "--beside-python", action=app.MovedOption, program=program)
    command.set_defaults(tool=bench_input)
    for name in MOVED:
        # With a `config`, app.parse_tool accepts any options, so that the message about the move is what users see.
        benches.add_parser(name).set_defaults(tool=_refuse_moved, name=name, config="")


def add_step_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `bench step` and `bench predict`, which benchmarks/beside_timm.py has too."""
    command.add_argument("--config", default="configs/demo/pretrain.py", help=CONFIG)
    command.add_argument("--steps", type=bounded("in [1, 2^20]"), default=10, help="steps or batches in each turn")
    command.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")


def add_input_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `bench input`, which benchmarks/beside_big_vision.py has too."""
    command.add_argument("--config", default="configs/demo/pretrain.py", help=CONFIG)
    command.add_argument(
        "--source",
        default="",
        help="data source instead of the config's; photographs writes JPEGs of 500 x 375 pixels and reads them",
    )
    command.add_argument("--images", type=bounded("in [1, 2^20]"), default=512, help="number of images to time")
    command.add_argument("--device", default="TPU v3", help="kind of device that the host feeds")
    devices = bounded("in [1, 2^10]")
    command.add_argument("--devices", type=devices, default=8, help="number of devices that the host feeds (for a TPU v3: cores)")
    command.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")


def bench_step(arguments: argparse.Namespace) -> None:
    """Time the training step or prediction, beside the reference model. Print the figures."""
    from mixer_jax.bench import step  # It imports JAX, which other tools do without.

    config = app.read_config(arguments.config, arguments.overrides)
    print_figures(step.benchmark(arguments.kind, config, arguments.steps, {}), arguments.json, step.format_benchmark)


def bench_input(arguments: argparse.Namespace) -> None:
    """Time the input pipeline, beside Grain's. Print the figures."""
    from mixer_jax.bench import input, photographs  # These import JAX, which other tools do without.

    config = app.read_config(arguments.config, arguments.overrides)
    with tempfile.TemporaryDirectory() as folder:
        source = photographs.open_images(config, arguments.source, arguments.images, Path(folder))
        figures = input.benchmark_input(config, source, arguments.images, arguments.device, arguments.devices, {})
    print_figures(figures, arguments.json, input.format_benchmark)


def _refuse_moved(arguments: argparse.Namespace) -> None:
    raise UserError(f"bench {arguments.name} is a program of its own now: python -m benchmarks.{MOVED[arguments.name]} --help")
