"""The command line of `python -m mixer_jax plan` and `recipe-scale`: options, and the functions that run them."""

import argparse

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.storage import json_text
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register the commands `plan` and `recipe-scale`."""
    _add_recipe_scale(commands)
    command = commands.add_parser("plan", help="compile a config for a TPU pod without the pod: does it fit, how fast is it")
    command.add_argument("--config", metavar="FILE", help="FILE.py or FILE.py:ARG; --config.NAME=VALUE replaces an option")
    command.add_argument("--topology", metavar="NAME", help="such as v3:8x8 (chips); an unknown name lists the known ones")
    slices, images = bounded("in [1, 2^10]"), bounded("in [0, 2^50]")
    seconds = bounded("in [0, 10^6]", float)
    command.add_argument(
        "--slices", type=slices, default=1, help="number of slices of that topology; the run is data parallel across them"
    )
    command.add_argument(
        "--batch-per-core",
        type=images,
        default=0,
        metavar="N",
        help="images on each device; 0 splits the config's batch over the devices",
    )
    command.add_argument("--stage", choices=("train", "eval"), default="train", help="compile the training step, or inference")
    _add_examples(command)
    command.add_argument(
        "--timeout", type=seconds, default=0, metavar="SECONDS", help="limit for compiling one program; 0 means 20 minutes"
    )
    command.add_argument("--json", action="store_true", help="print the figures as one JSON object too, on the last line")
    command.add_argument(
        "--search", action="store_true", help="search for the largest batch and the cheapest flags with which the config fits"
    )
    for option, program in {
        "--fit": "fit",
        "--table": "throughput | speed",
        "--check": "check",
        "--out": "fit --out DIR",
    }.items():
        command.add_argument(option, action=app.MovedOption, program=f"python -m benchmarks.planning {program}")
    command.set_defaults(tool=run_plan)


def _add_examples(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--examples",
        type=bounded("in [1, 2^50]"),
        default=0,
        metavar="N",
        help="number of training images, if it is not known for the config's data source",
    )


def _add_recipe_scale(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("recipe-scale", help="turn a pod's recipe into flags for the devices that are there")
    command.add_argument(
        "--config", required=True, metavar="FILE", help="FILE.py or FILE.py:ARG; --config.NAME=VALUE replaces an option"
    )
    above_0 = bounded("in (0, 10^9]", float)
    command.add_argument("--devices", type=bounded("in [1, 2^20]"), default=1, help="number of devices (default: 1)")
    command.add_argument(
        "--memory-gib", type=above_0, required=True, metavar="GIB", help="memory of each device that JAX may use"
    )
    command.add_argument(
        "--batch-size", type=bounded("in [1, 2^20]"), default=0, metavar="N", help="images in a step (default: the recipe's)"
    )
    command.add_argument(
        "--epochs", type=bounded("in (0, 10^6]", float), default=0, metavar="N", help="length of training (default: the recipe's)"
    )
    _add_examples(command)
    command.add_argument(
        "--images-per-second", type=above_0, default=0, metavar="RATE", help="speed of training on all devices, for the time"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    command.set_defaults(tool=run_recipe_scale)


def run_recipe_scale(arguments: argparse.Namespace) -> None:
    """Scale a recipe, and print it."""
    from mixer_jax.planning import recipe_scale  # It imports JAX, which other tools do without.

    figures = recipe_scale.scale(
        arguments.config,
        arguments.overrides,
        arguments.devices,
        arguments.memory_gib,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        num_examples=arguments.examples,
        images_per_second=arguments.images_per_second,
    )
    print_figures(figures, arguments.json, recipe_scale.format_scaled)


def run_plan(arguments: argparse.Namespace) -> None:
    """Plan one config on one pod, or with --search look for the flags that make it fit there. Print the figures."""
    from mixer_jax.planning import plan, search  # These import JAX, which other tools do without.
    from mixer_jax.planning.compiler import TIMEOUT_SECONDS, Compiler

    if arguments.search and arguments.batch_per_core:
        raise UserError("--search looks for the batch itself, from config.batch_size on: leave --batch-per-core out.")
    for option in ("config", "topology"):
        if not getattr(arguments, option):
            raise UserError(f"--{option} is missing, for example --config=configs/pretrain_jft300m.py:L/16 --topology=v3:8x8.")
    config = app.read_config(arguments.config, arguments.overrides)
    options = {"num_slices": arguments.slices, "stage": arguments.stage, "num_examples": arguments.examples}
    with Compiler(arguments.timeout or TIMEOUT_SECONDS) as compiler:
        if arguments.search:
            figures = search.search(compiler, arguments.config, config, arguments.topology, **options)
            print(search.format_search(figures))
        else:
            options["batch_per_core"] = arguments.batch_per_core
            figures = plan.plan(compiler, arguments.config, config, arguments.topology, **options)
            print(plan.format_plan(figures))
    if arguments.json:
        print(json_text(figures))
