"""`python -m mixer_jax prepare`: the options, and what runs."""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.preparation.spec import PreparationSpec


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `prepare`. Most of its options are fields of `PreparationSpec`, which has their defaults."""
    command = commands.add_parser(
        "prepare",
        help="images from anywhere -> shards for records:DIR; run again, it goes on or mends",
        argument_default=argparse.SUPPRESS,
    )
    command.set_defaults(tool=prepare)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--from", dest="source", metavar="KIND:PATH", help="folder:, tars:, tar:, zip:, webdataset:, cifar: or tfds:"
    )
    what.add_argument("--verify", metavar="DIR", help="only compare all bytes of DIR, or of its splits, with the manifest")
    command.add_argument("--to", metavar="DIR", help="makes DIR/SPLIT")
    command.add_argument(
        "--split", default="train", help="name of the split to make; of cifar:, tfds: and Flowers-102 also the one to read"
    )
    command.add_argument("--classes", metavar="FILE", help="names in order, a line each, or another split's manifest.json")
    command.add_argument(
        "--labels", metavar="FILE", help="a table of images and their classes, such as CSV, or a data set's own file"
    )
    command.add_argument("--synsets", metavar="FILE", help="meta.mat, when --labels has ImageNet's numbers")
    command.add_argument("--under", metavar="FOLDER", help="only what lies in this folder of the source")
    command.add_argument("--data-dir", metavar="DIR", help="of tfds: where prepared data lies")
    command.add_argument("--max-side", type=int, metavar="N", help="pixels: larger images are made smaller; 0: never")
    command.add_argument("--quality", type=int, metavar="Q", help="of JPEGs made smaller")
    command.add_argument("--records-per-shard", type=int, metavar="N")
    command.add_argument("--seed", type=int, help="of the order")
    command.add_argument(
        "--drop-near-duplicates-of", nargs="+", action="extend", metavar="SOURCE",
        help="leave out copies of these images, such as a test set: KIND:PATH as in --from, or records:DIR/SPLIT",
    )  # fmt: skip
    command.add_argument(
        "--drop-near-duplicates-within", action="store_true",
        help="keep the first of images that are copies of each other; all are read twice",
    )  # fmt: skip
    command.add_argument(
        "--near-duplicate-correlation", type=float, metavar="R",
        help="of the details of two aligned images, from 0.7 to 1: with as much they are copies; "
        f"{PreparationSpec.near_duplicate_correlation} if left out",
    )  # fmt: skip
    command.add_argument(
        "--near-duplicate-detail", type=float, metavar="S",
        help="of an image, from 0 for a blank to 1; most photographs have 0.75: with less it is compared by its bytes alone; "
        f"{PreparationSpec.near_duplicate_detail} if left out",
    )  # fmt: skip
    command.add_argument(
        "--skip-unreadable", action="store_true", help="leave images out that do not decode; the manifest lists them"
    )
    command.add_argument("--skip-bad", dest="skip_unreadable", action=app.OldFlag, nargs=0, const=True)
    command.add_argument("--allow-empty-classes", action="store_true", help="classes may have no image")
    command.add_argument("--threads", type=int, default=os.cpu_count(), help="shards made at once; each is held in memory")


def prepare(arguments: argparse.Namespace) -> None:
    """Make or mend a split, or verify one."""
    from mixer_jax.data.sources.manifest import Manifest, split_folders  # heavy: OpenCV, TensorFlow Datasets
    from mixer_jax.preparation.prepare import prepare as prepare_shards

    given = vars(arguments)
    if "verify" in given:
        for manifest in map(Manifest, split_folders(Path(arguments.verify))):
            manifest.check("whole")
            print(f"{manifest.directory}: {len(manifest.shards)} shards are whole")
        return
    if "to" not in given:
        raise UserError("--to DIR is missing: the folder to make, whose sub-folder SPLIT holds the shards.")
    options = {field.name: given[field.name] for field in fields(PreparationSpec) if field.name in given}
    if "drop_near_duplicates_of" in options:
        options["drop_near_duplicates_of"] = tuple(options["drop_near_duplicates_of"])
    print(prepare_shards(PreparationSpec(**options), Path(arguments.to), arguments.threads).summary())
