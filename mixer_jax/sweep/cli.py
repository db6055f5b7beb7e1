"""The command line of `python -m mixer_jax sweep`: its options, and the function that runs it."""

import argparse
import re

from mixer_jax import app
from mixer_jax.errors import UserError

OPTION = re.compile(r"[\w-]+(\.[\w-]+)*")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register the command `sweep`."""
    command = commands.add_parser(
        "sweep", help="train with several values of some options, and choose among them by images that no test uses"
    )
    command.add_argument(
        "--config", required=True, metavar="FILE.py[:ARG]", help="the config; options follow as --config.a=VALUE"
    )
    command.add_argument("--data-locations", default="", metavar="FILE", help="where data sets lie (docs/data.md)")
    command.add_argument(
        "--vary", action="append", default=[], metavar="OPTION=A,B", help="an option and its values; several: all combinations"
    )
    command.add_argument("--seeds", default="0", metavar="0,1,2", help="values of config.seed (0)")
    command.add_argument(
        "--select",
        required=True,
        metavar="evals.NAME.FIGURE",
        help="what decides, such as evals.dev.top1: the highest, or the lowest loss",
    )
    command.add_argument(
        "--hold-out",
        default="",
        metavar="10%",
        help="choose on this share of the training split, then train on all of it with each seed; or two splits: TRAIN,DEV",
    )
    command.add_argument("--workdir", required=True, metavar="DIR", help="the folder of all runs, or gs://BUCKET/FOLDER")
    add_actions(command)
    command.set_defaults(tool=sweep)


def add_actions(command: argparse.ArgumentParser) -> None:
    """Add --run, --commands and --json, of which one may be typed."""
    from mixer_jax.sweep.written import FORMATS

    actions = command.add_mutually_exclusive_group()
    actions.add_argument("--run", action="store_true", help="run what is missing, one run after the other, and show the result")
    actions.add_argument(
        "--commands",
        nargs="?",
        const=FORMATS[0],
        choices=FORMATS,
        help="print the runs that can start now, as lines of JSON, for sbatch, or as launches",
    )
    actions.add_argument("--json", action="store_true", help="print one line of JSON instead of tables")


def sweep(arguments: argparse.Namespace) -> None:
    """Show a sweep, run it, or print its commands."""
    from mixer_jax.sweep import stages, text, written  # These imports are slow, because they import JAX.
    from mixer_jax.text_table import print_figures

    found = asked(arguments)
    progress = stages.run(found) if arguments.run else stages.progress_of(found)
    if arguments.commands:
        jobs = progress.startable()
        print(written.write(jobs, arguments.commands), end="\n" if jobs else "", flush=True)
        return
    print_figures(text.figures_of(found, progress), arguments.json, text.format_sweep)


def asked(arguments: argparse.Namespace) -> "Sweep":
    """Return the sweep that the arguments ask for. Raises UserError for what cannot be one."""
    from mixer_jax.sweep import grid

    evaluator, metric = _selected(arguments.select)
    flags = (*([f"--data-locations={arguments.data_locations}"] if arguments.data_locations else []), *arguments.overrides)
    hold_out = None
    if arguments.hold_out:
        hold_out = grid.held_out(app.read_config(arguments.config, list(flags)).data.split, arguments.hold_out)
        if evaluator != grid.DEV:
            raise UserError(
                f"--hold-out evaluates the images that it holds out as {grid.DEV!r}: --select=evals.{grid.DEV}.{metric}"
            )
    elif evaluator == grid.TEST:
        raise UserError(f"--select={arguments.select} would choose by the test split: hold images out (--hold-out=10%).")
    found = grid.Sweep(
        arguments.config, flags, _varied(arguments.vary), _seeds(arguments.seeds), evaluator, metric,
        arguments.workdir.rstrip("/"), hold_out,
    )  # fmt: skip
    grid.check(found)
    return found


def _selected(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"evals\.([\w-]+)\.([\w-]+)", text)
    if not found:
        raise UserError(f"--select={text} names no figure: write evals.EVALUATOR.FIGURE, such as evals.dev.top1.")
    return found[1], found[2]


def _varied(texts: list[str]) -> dict[str, list[str]]:
    varied: dict[str, list[str]] = {}
    for text in texts:
        option, _, values = text.partition("=")
        option = option.removeprefix("config.")
        if not OPTION.fullmatch(option) or not all(values.split(",")):
            raise UserError(f"--vary={text}: write --vary=OPTION=A,B, such as --vary=optimizer.learning_rate=0.003,0.01.")
        if option in varied or option == "seed":
            raise UserError(f"--vary={text}: " + ("--seeds is for the seeds." if option == "seed" else "name each option once."))
        varied[option] = values.split(",")
    if not varied:
        raise UserError("Name at least one option that varies: --vary=optimizer.learning_rate=0.003,0.01.")
    return varied


def _seeds(text: str) -> list[int]:
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
        raise UserError(f"--seeds={text}: write whole numbers, such as 0,1,2.")
    seeds = list(map(int, text.split(",")))
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={text}: write each seed once.")
    return seeds
