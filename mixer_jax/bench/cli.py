"""`python -m mixer_jax bench step | predict | input`: the options, and what runs for each."""

import argparse
import tempfile
from pathlib import Path

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded

CONFIG = "FILE.py or FILE.py:ARG; --config.NAME=VALUE replaces an option, as in train.py"
MEASURED = {"step": "the training step", "predict": "prediction, as evaluators call it"}
MOVED = {"duplicates": "near_duplicates", "memory": "memory", "surgery": "surgery"}  # to benchmarks/, which makes docs' figures


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `bench` and what it measures."""
    benches = commands.add_parser("bench", help="figures of this machine and of the demo's models")
    benches = benches.add_subparsers(required=True, metavar="{step,predict,input}")
    for kind, measured in MEASURED.items():
        command = benches.add_parser(kind, help=f"speed, memory and start of {measured}, beside the reference model")
        add_step_options(command)
        program = f"python -m benchmarks.beside_timm {kind} --help"
        command.add_argument("--beside-timm", "--beside-python", action=app.MovedOption, program=program)
        command.set_defaults(tool=bench_step, kind=kind)
    command = benches.add_parser("input", help="speed of every stage between the source and the device, and whether it is enough")
    add_input_options(command)
    program = "python -m benchmarks.beside_big_vision --help"
    command.add_argument("--beside", "--beside-python", action=app.MovedOption, program=program)
    command.set_defaults(tool=bench_input)
    for name in MOVED:
        benches.add_parser(name).set_defaults(tool=_refuse_moved, name=name, config="")  # which lets any options pass


def add_step_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `bench step` and `bench predict`, which programs beside them share."""
    command.add_argument("--config", default="configs/demo/pretrain.py", help=CONFIG)
    command.add_argument("--steps", type=bounded("in [1, 2^20]"), default=10, help="steps, or batches, in each turn")
    command.add_argument("--json", action="store_true", help="one line of JSON, for programs")


def add_input_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `bench input`, which programs beside it share."""
    command.add_argument("--config", default="configs/demo/pretrain.py", help=CONFIG)
    command.add_argument("--source", default="", help="in place of the config's; photographs: 500 x 375 JPEGs")
    command.add_argument("--images", type=bounded("in [1, 2^20]"), default=512, help="images to time")
    command.add_argument("--device", default="TPU v3", help="that the host is to feed")
    devices = bounded("in [1, 2^10]")
    command.add_argument("--devices", type=devices, default=8, help="how many hang on this host (of a TPU v3: cores)")
    command.add_argument("--json", action="store_true", help="one line of JSON, for programs")


def bench_step(arguments: argparse.Namespace) -> None:
    """Time the training step or prediction, ours beside the reference."""
    from mixer_jax.bench import step  # heavy: JAX, which other tools do without

    config = app.read_config(arguments.config, arguments.overrides)
    print_figures(step.benchmark(arguments.kind, config, arguments.steps, {}), arguments.json, step.format_benchmark)


def bench_input(arguments: argparse.Namespace) -> None:
    """Time the input pipeline, ours beside Grain's."""
    from mixer_jax.bench import input, photographs  # heavy: JAX, which other tools do without

    config = app.read_config(arguments.config, arguments.overrides)
    with tempfile.TemporaryDirectory() as folder:
        source = photographs.open_images(config, arguments.source, arguments.images, Path(folder))
        figures = input.benchmark_input(config, source, arguments.images, arguments.device, arguments.devices, {})
    print_figures(figures, arguments.json, input.format_benchmark)


def _refuse_moved(arguments: argparse.Namespace) -> None:
    raise UserError(f"bench {arguments.name} is a program of its own now: python -m benchmarks.{MOVED[arguments.name]} --help")
