"""`python -m mixer_jax plan`: the options, and which tool they mean."""

import argparse
import json
from pathlib import Path

from benchmarks.planning import pictures, tables
from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.planning import plan, search
from mixer_jax.planning.compiler import TIMEOUT_SECONDS, Compiler


def add_plan(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("plan", help="a config compiled for a TPU pod that is not there: does it fit, how fast is it")
    command.add_argument("--config", metavar="FILE", help="FILE.py or FILE.py:ARG; --config.NAME=VALUE replaces an option")
    command.add_argument("--topology", metavar="NAME", help="such as v3:8x8 (chips); an unknown one lists those that there are")
    command.add_argument("--slices", type=int, default=1, help="how many of these; between them data parallel")
    command.add_argument(
        "--batch-per-core", type=int, default=0, metavar="N", help="images; 0: the config's batch over the devices"
    )
    command.add_argument("--stage", choices=("train", "eval"), default="train", help="the training step, or inference")
    command.add_argument("--examples", type=int, default=0, metavar="N", help="training images, where the source's are not known")
    command.add_argument("--timeout", type=float, default=TIMEOUT_SECONDS, metavar="SECONDS", help="that one program may take")
    command.add_argument("--json", action="store_true", help="the figures as one object, on the last line")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--search", action="store_true", help="the largest batch and the cheapest flags with which the config fits")
    what.add_argument(
        "--fit", action="store_true", help="every pre-training config on several pods (hours, when nothing is cached)"
    )
    what.add_argument("--table", choices=("throughput", "speed"), help="beside the paper's column; beside the textbook's model")
    what.add_argument("--check", action="store_true", help="that what --fit recorded still fits and is no slower")
    command.add_argument(
        "--out", type=Path, default=tables.RECORDED, metavar="DIR", help="of --fit and --table: JSON, CSV, picture"
    )
    command.set_defaults(tool=run_plan)


def run_plan(arguments: argparse.Namespace) -> None:
    name = "fit" if arguments.fit else arguments.table
    if (name or arguments.check) and (arguments.config or arguments.topology or arguments.overrides):
        raise UserError("--fit, --table and --check have configs and topologies of their own: leave these options out.")
    if arguments.search and arguments.batch_per_core:
        raise UserError("--search looks for the batch itself, from config.batch_size on: leave --batch-per-core out.")
    if arguments.slices < 1 or arguments.batch_per_core < 0:
        raise UserError(f"--slices={arguments.slices} --batch-per-core={arguments.batch_per_core}: at least 1, and at least 0.")
    with Compiler(arguments.timeout) as compiler:
        if arguments.check:
            for line in tables.check(compiler, app.read_config):
                print(line, flush=True)
        elif name:
            table = tables.TABLES[name](compiler, app.read_config)
            tables.write(name, table, arguments.out)
            if name == "throughput":
                pictures.plot(table, arguments.out / "throughput.png")
            show(table, pictures.markdown(name, table), arguments.json)
        else:
            plan_one(compiler, arguments)


def plan_one(compiler: Compiler, arguments: argparse.Namespace) -> None:
    for option in ("config", "topology"):
        if not getattr(arguments, option):
            raise UserError(f"--{option} is missing, for example --config=configs/pretrain_jft300m.py:L/16 --topology=v3:8x8.")
    config = app.read_config(arguments.config, arguments.overrides)
    options = {"num_slices": arguments.slices, "stage": arguments.stage, "num_examples": arguments.examples}
    if arguments.search:
        found = search.search(compiler, arguments.config, config, arguments.topology, **options)
        show(found, search.as_text(found), arguments.json)
    else:
        options["batch_per_core"] = arguments.batch_per_core
        found = plan.plan(compiler, arguments.config, config, arguments.topology, **options)
        show(found, plan.as_text(found), arguments.json)


def show(figures: dict, text: str, as_json: bool) -> None:
    """The text and, if asked for, the figures as one line after it."""
    print(text)
    if as_json:
        print(json.dumps(figures))
