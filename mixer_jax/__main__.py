"""The few tools beside training: `python -m mixer_jax COMMAND --help`."""

import argparse
import json
import runpy
import sys
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from mixer_jax import app, parallel
from mixer_jax.benchmark import benchmark
from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.manager import load_weights
from mixer_jax.config import UserError
from mixer_jax.report.demo import run_demo
from mixer_jax.report.page import report_runs


def read_config(place: str) -> ConfigDict:
    """The config that FILE.py or FILE.py:ARG makes, for tools that take no overrides."""
    file, _, argument = place.partition(":")
    if not Path(file).is_file():
        raise UserError(f"There is no config file {file}.")
    get_config = runpy.run_path(file)["get_config"]
    return get_config(argument) if argument else get_config()


def demo(arguments: argparse.Namespace) -> None:
    run_demo(Path(arguments.workdir))


def report(arguments: argparse.Namespace) -> None:
    report_runs([Path(run) for run in arguments.runs], Path(arguments.out))
    print(arguments.out)


def digest(arguments: argparse.Namespace) -> None:
    params, _ = load_weights(arguments.run, parallel.make_mesh(1))
    print(params_sha256(parallel.to_host(params)))


def bench(arguments: argparse.Namespace) -> None:
    print(json.dumps(benchmark(read_config(arguments.config), arguments.steps)))


def parser() -> argparse.ArgumentParser:
    tools = argparse.ArgumentParser(prog="python -m mixer_jax", description=__doc__)
    commands = tools.add_subparsers(required=True)

    command = commands.add_parser("demo", help="pre-train, fine-tune and evaluate on small data; ends with a page")
    command.add_argument("--workdir", default="runs/demo", help="folder of its runs and of report.html")
    command.set_defaults(tool=demo)

    command = commands.add_parser("report", help="one HTML page about one or more runs")
    command.add_argument("runs", nargs="+", metavar="RUN", help="folders that train.py wrote")
    command.add_argument("--out", default="report.html", help="the page")
    command.set_defaults(tool=report)

    command = commands.add_parser("digest", help="SHA-256 of a checkpoint's parameters, as in results.json")
    command.add_argument("run", metavar="RUN_OR_STEP", help="a run's folder or its checkpoints/STEP")
    command.set_defaults(tool=digest)

    command = commands.add_parser("bench", help="speed of the training step and of its input here, as JSON")
    command.add_argument("--config", default="configs/demo/pretrain.py", help="FILE.py or FILE.py:ARG")
    command.add_argument("--steps", type=int, default=20, help="steps to time, each of both")
    command.set_defaults(tool=bench)
    return tools


def main() -> int:
    arguments = parser().parse_args()
    logging.set_verbosity(logging.ERROR)
    try:
        arguments.tool(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return app.TO_MEND
    return app.DONE


if __name__ == "__main__":
    sys.exit(main())
