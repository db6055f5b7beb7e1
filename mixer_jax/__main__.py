"""The few tools beside training: `python -m mixer_jax COMMAND --help`."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from benchmarks import timm_model as beside_timm
from benchmarks.big_vision_pipeline import PYTHON, big_vision
from benchmarks.memory import benchmark_memory
from benchmarks.near_duplicates import benchmark_duplicates
from benchmarks.surgery import benchmark_surgery
from mixer_jax import app
from mixer_jax.bench import step
from mixer_jax.bench.input import as_text, benchmark_input
from mixer_jax.bench.photographs import Repeated, write_photographs
from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.released import list_released, verify
from mixer_jax.checkpoints.weights import SUFFIXES, file_metadata, load_weights, tree_of
from mixer_jax.checkpoints.weights import convert as convert_weights
from mixer_jax.config import validate
from mixer_jax.data.sources.manifest import Manifest, split_folders
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Source
from mixer_jax.errors import UserError
from mixer_jax.export import FORMATS, export_program
from mixer_jax.models.registry import make_model
from mixer_jax.planning.cli import add_plan
from mixer_jax.preparation.inputs import PreparationSpec
from mixer_jax.preparation.prepare import prepare as prepare_shards
from mixer_jax.report.demo import run_demo
from mixer_jax.report.page import report_runs

WEIGHTS = "a run's folder, its checkpoints/STEP, a .npz or .safetensors file, or SCHEME://BUCKET/FILE"
CONFIG = "FILE.py or FILE.py:ARG; --config.NAME=VALUE replaces an option, as in train.py"


def demo(arguments: argparse.Namespace) -> None:
    run_demo(Path(arguments.workdir))


def report(arguments: argparse.Namespace) -> None:
    report_runs([Path(run) for run in arguments.runs], Path(arguments.out))
    print(arguments.out)


def digest(arguments: argparse.Namespace) -> None:
    print(params_sha256(load_weights(arguments.weights).arrays))


def convert(arguments: argparse.Namespace) -> None:
    convert_weights(arguments.source, arguments.target, arguments.layout)


def prepare(arguments: argparse.Namespace) -> None:
    if arguments.verify:
        splits = split_folders(Path(arguments.verify))
        for manifest in map(Manifest, splits):
            manifest.check("whole")
            print(f"{manifest.directory}: {len(manifest.shards)} shards are whole")
        return
    if not arguments.to:
        raise UserError("--to DIR is missing: the folder to make, whose sub-folder SPLIT holds the shards.")
    arguments.drop_near_duplicates_of = tuple(arguments.drop_near_duplicates_of)
    options = {field.name: getattr(arguments, field.name) for field in fields(PreparationSpec)}
    manifest = prepare_shards(PreparationSpec(**options), Path(arguments.to), arguments.threads)
    print(manifest.summary())


def export(arguments: argparse.Namespace) -> None:
    out = arguments.out or f"{Path(arguments.weights).resolve().stem}.{arguments.format}"
    if f".{arguments.format}" in SUFFIXES:
        convert_weights(arguments.weights, out)
        return
    weights = load_weights(arguments.weights)
    model = make_model(weights.model.config(), weights.model.num_classes)
    image_size = weights.model.image_size
    difference = export_program(model, tree_of(weights.arrays), image_size, out, arguments.format, file_metadata(weights))
    print(f"{arguments.weights} -> {out}: {weights.model}")
    print(f"  largest difference of logits, loaded without this package: {difference:.3g}")


def list_weights(arguments: argparse.Namespace) -> None:
    print(list_released())


def verify_weights(arguments: argparse.Namespace) -> None:
    print(verify(arguments.weights, arguments.sha256))


def bench_step(arguments: argparse.Namespace) -> None:
    config = app.read_config(arguments.config, arguments.overrides)
    python = arguments.beside_python if arguments.beside_timm else ""
    print_figures(step.benchmark(arguments.kind, config, arguments.steps, python), arguments.json, step.as_text)


def bench_input(arguments: argparse.Namespace) -> None:
    config = app.read_config(arguments.config, arguments.overrides)
    with ExitStack() as stack:
        source = input_source(config, arguments, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        others = {}
        if arguments.beside:
            clone, python = Path(arguments.beside), arguments.beside_python
            peer = big_vision(clone, python, source, arguments.images, config.image_size)
            others["big_vision"] = stack.enter_context(peer)
        figures = benchmark_input(config, source, arguments.images, arguments.device, arguments.devices, others)
    print_figures({"source": arguments.source or config.data.source or "mixture"} | figures, arguments.json, as_text)


def input_source(config: ConfigDict, arguments: argparse.Namespace, folder: Path) -> Source:
    """What `bench input` reads; photographs are written into `folder`."""
    if arguments.source == "photographs":
        write_photographs(folder, 64)
        config.data.update(source=f"folder:{folder}", split="")
    elif arguments.source:
        config.data.source = arguments.source
    validate(config)
    source = open_source(config.data)
    return Repeated(source, arguments.images) if arguments.source == "photographs" or arguments.beside else source


def bench_duplicates(arguments: argparse.Namespace) -> None:
    print_figures(benchmark_duplicates(arguments.source, arguments.images, arguments.references), arguments.json)


def bench_memory(arguments: argparse.Namespace) -> None:
    for records in arguments.records:
        print_figures(benchmark_memory(records, arguments.seconds), arguments.json)


def bench_surgery(arguments: argparse.Namespace) -> None:
    figures = benchmark_surgery(Path(arguments.run), Path(arguments.workdir).absolute(), arguments.steps)
    print_figures(figures, arguments.json)


def print_figures(figures: dict, as_json: bool, as_text: Callable[[dict], str] | None = None) -> None:
    """One line of JSON, or `as_text`, or a line for each."""
    if as_json:
        print(json.dumps(figures))
    elif as_text:
        print(as_text(figures))
    else:
        print("\n".join(figure_lines(figures)), flush=True)


def figure_lines(figures: dict, indent: str = "") -> Iterator[str]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from figure_lines(value, indent + "  ")
        else:
            yield f"{indent}{name}".ljust(44) + str(value)


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
    command.add_argument("weights", help=WEIGHTS)
    command.set_defaults(tool=digest)

    command = commands.add_parser("convert", help="weights from one form to another; both are then compared")
    command.add_argument("--from", required=True, dest="source", metavar="A", help=WEIGHTS)
    command.add_argument(
        "--to", required=True, dest="target", metavar="B", help="FILE.npz, FILE.safetensors or a new run's folder"
    )
    command.add_argument("--layout", help="names in the file: released (usual in .npz), timm (in .safetensors) or internal")
    command.set_defaults(tool=convert)

    command = commands.add_parser(
        "prepare", help="images from anywhere -> shards for records:DIR; run again, it goes on or mends"
    )
    add_recipe(command).set_defaults(tool=prepare)

    command = commands.add_parser("export", help="one file for inference: a program, or weights in the form others read")
    command.add_argument("weights", help=WEIGHTS)
    command.add_argument("--format", required=True, choices=[*FORMATS, *(suffix[1:] for suffix in SUFFIXES)])
    command.add_argument("--out", help="the file; NAME.FORMAT here when not given")
    command.set_defaults(tool=export)

    command = commands.add_parser("weights", help="the released weights: which there are, and whether a file is sound")
    command = command.add_subparsers(required=True)
    command.add_parser("list", help="the four released Mixers").set_defaults(tool=list_weights)
    command = command.add_parser("verify", help="structure, shapes, finite values and digest of a file, and which model it is")
    command.add_argument("weights", help=WEIGHTS)
    command.add_argument("--sha256", default="", help="that the file must have, when you know it")
    command.set_defaults(tool=verify_weights)

    add_plan(commands)
    add_benches(commands)
    return tools


def add_benches(commands: argparse._SubParsersAction) -> None:
    """`bench WHAT`."""
    benches = commands.add_parser("bench", help="figures of this machine and of the demo's models")
    benches = benches.add_subparsers(required=True)
    for kind, what in (("step", "the training step"), ("predict", "prediction, as evaluators call it")):
        command = benches.add_parser(kind, help=f"speed, memory and start of {what}, beside the textbook's Mixer")
        command.add_argument("--config", default="configs/demo/pretrain.py", help=CONFIG)
        command.add_argument("--steps", type=int, default=10, help="steps, or batches, in each turn")
        command.add_argument("--beside-timm", action="store_true", help="timm's Mixer of the same size too, on PyTorch")
        command.add_argument(
            "--beside-python", default=str(beside_timm.PYTHON), metavar="FILE", help="that runs it; `make test-interop` makes one"
        )
        command.set_defaults(tool=bench_step, kind=kind)
    command = benches.add_parser("input", help="speed of every stage between the source and the device, and whether it is enough")
    command.add_argument("--config", default="configs/demo/pretrain.py", help=CONFIG)
    command.add_argument("--source", default="", help="in place of the config's; photographs: 500 x 375 JPEGs")
    command.add_argument("--images", type=int, default=512, help="images to time")
    command.add_argument("--device", default="TPU v3", help="that the host is to feed")
    command.add_argument("--devices", type=int, default=8, help="how many hang on this host (of a TPU v3: cores)")
    command.add_argument("--beside", default="", metavar="DIR", help="big_vision's pipeline too: a clone of its repository")
    command.add_argument("--beside-python", default=str(PYTHON), metavar="FILE", help="that runs it; `make peers` makes one")
    command.set_defaults(tool=bench_input)
    command = benches.add_parser(
        "duplicates", help="which copies of an image prepare --drop-near-duplicates-of finds, and how fast"
    )
    command.add_argument("--source", default="", metavar="KIND:PATH", help="photographs to try, in place of those that ship")
    command.add_argument("--images", type=int, default=100_000, help="to match, in the measurement of speed")
    command.add_argument("--references", type=int, default=50_000, help="to match them with")
    command.set_defaults(tool=bench_duplicates)
    command = benches.add_parser("memory", help="start-up and memory of data sets of any size, made for it")
    numbers = {"type": int, "nargs": "+", "metavar": "N", "default": [14_197_122, 300_000_000]}  # ImageNet-21k, JFT-300M
    command.add_argument("--records", **numbers, help="how many images each has")
    command.add_argument("--seconds", type=float, default=15, help="to read from each")
    command.set_defaults(tool=bench_memory)
    command = benches.add_parser("surgery", help="accuracy after a change of resolution, before and after fine-tuning")
    command.add_argument("--run", default="runs/demo/full", help="a run of the demo's fine-tuning")
    command.add_argument("--workdir", default="runs/surgery", help="folder of its files and runs")
    command.add_argument("--steps", type=int, default=100, help="of fine-tuning")
    command.set_defaults(tool=bench_surgery)
    for command in benches.choices.values():
        command.add_argument("--json", action="store_true", help="one line of JSON, for programs")


def add_recipe(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of `prepare`: those of preparation.inputs.PreparationSpec."""
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--from", dest="source", metavar="KIND:PATH", help="folder:, tars:, tar:, zip:, webdataset:, cifar: or tfds:"
    )
    what.add_argument("--verify", metavar="DIR", help="only compare all bytes of DIR, or of its splits, with the manifest")
    command.add_argument("--to", metavar="DIR", help="makes DIR/SPLIT")
    command.add_argument(
        "--split", default="train", help="name of the split to make; of cifar:, tfds: and Flowers-102 also the one to read"
    )
    command.add_argument(
        "--classes", default="", metavar="FILE", help="names in order, a line each, or another split's manifest.json"
    )
    command.add_argument(
        "--labels", default="", metavar="FILE", help="NAME CLASS ... lines, or a data set's own file (label_files.py)"
    )
    command.add_argument("--synsets", default="", metavar="FILE", help="meta.mat, when --labels has ImageNet's numbers")
    command.add_argument("--under", default="", metavar="FOLDER", help="only what lies in this folder of the source")
    command.add_argument("--data-dir", default="", metavar="DIR", help="of tfds: where prepared data lies")
    command.add_argument("--max-side", type=int, default=0, metavar="N", help="pixels: larger images are made smaller; 0: never")
    command.add_argument("--quality", type=int, default=PreparationSpec.quality, metavar="Q", help="of JPEGs made smaller")
    command.add_argument("--records-per-shard", type=int, default=PreparationSpec.records_per_shard, metavar="N")
    command.add_argument("--seed", type=int, default=0, help="of the order")
    command.add_argument(
        "--drop-near-duplicates-of", nargs="+", action="extend", default=[], metavar="SOURCE",
        help="leave out copies of these images, such as a test set: KIND:PATH as in --from, or records:DIR/SPLIT",
    )  # fmt: skip
    command.add_argument(
        "--skip-unreadable", action="store_true", help="leave images out that do not decode; the manifest lists them"
    )
    command.add_argument("--skip-bad", dest="skip_unreadable", action=app.OldFlag, nargs=0, const=True)
    command.add_argument("--allow-empty-classes", action="store_true", help="classes may have no image")
    command.add_argument("--threads", type=int, default=os.cpu_count(), help="shards made at once; each is held in memory")
    return command


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments; `overrides` is what a tool with --config leaves over, to be read as options of that config."""
    tools = parser()
    arguments, overrides = tools.parse_known_args(argv)
    if overrides and "config" not in arguments:
        tools.error(f"unrecognized arguments: {' '.join(overrides)}")
    arguments.overrides = overrides
    return arguments


def main() -> int:
    arguments = parse()
    logging.set_verbosity(logging.ERROR)
    try:
        arguments.tool(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return app.TO_MEND
    return app.DONE


if __name__ == "__main__":
    sys.exit(main())
