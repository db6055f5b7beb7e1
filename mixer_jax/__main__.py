"""The few tools beside training: `python -m mixer_jax COMMAND --help`."""

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path

from mixer_jax import app
from mixer_jax.bench import cli as bench_cli
from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.released import list_released, verify
from mixer_jax.checkpoints.weights import SUFFIXES, file_metadata, load_weights, tree_of
from mixer_jax.checkpoints.weights import convert as convert_weights
from mixer_jax.data.sources.manifest import Manifest, split_folders
from mixer_jax.errors import UserError
from mixer_jax.export import FORMATS, export_program
from mixer_jax.models.registry import make_model
from mixer_jax.planning import cli as planning_cli
from mixer_jax.preparation.inputs import PreparationSpec
from mixer_jax.preparation.prepare import prepare as prepare_shards
from mixer_jax.report.demo import run_demo
from mixer_jax.report.page import report_runs

WEIGHTS = "a run's folder, its checkpoints/STEP, a .npz or .safetensors file, or SCHEME://BUCKET/FILE"


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

    planning_cli.add_commands(commands)
    bench_cli.add_commands(commands)
    return tools


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


def main() -> int:
    return app.run_tool(parser())


if __name__ == "__main__":
    sys.exit(main())
