"""The command `python -m mixer_jax prepare`: its options, and the function that it calls."""

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from mixer_jax import app
from mixer_jax.bucket import is_in_bucket
from mixer_jax.errors import UserError
from mixer_jax.preparation.parts import parse_part
from mixer_jax.preparation.spec import PreparationSpec, check_split


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `prepare`. Most of its options are fields of `PreparationSpec`, which defines their defaults."""
    command = commands.add_parser(
        "prepare",
        help="turn images from anywhere into shards for records:DIR; the same command again continues or repairs them",
        argument_default=argparse.SUPPRESS,
    )
    command.set_defaults(tool=prepare)
    task = command.add_mutually_exclusive_group(required=True)
    task.add_argument(
        "--from", dest="source", type=app.local_path, metavar="KIND:PATH",
        help="the source of the images; KIND is folder, tars, tar, zip, webdataset, cifar or tfds",
    )  # fmt: skip
    task.add_argument(
        "--verify",
        type=app.local_path,
        metavar="DIR",
        help="make nothing; compare all bytes of the split DIR, or of the splits in it, with its manifest",
    )
    task.add_argument(
        "--join", type=int, metavar="N", help="make the manifest of a split in --to, all of whose N parts were made by --part"
    )  # fmt: skip
    command.add_argument(
        "--part", metavar="I/N",
        help="make only part I of N, from 1/N to N/N, of the shards; several machines make different parts in one folder, and "
        "--join N ends the split",
    )  # fmt: skip
    command.add_argument("--to", metavar="DIR", help="the folder to write to, or gs://BUCKET/PATH; the shards are in DIR/SPLIT")
    command.add_argument(
        "--split", default="train", help="the name of the split to make; for cifar:, tfds: and Flowers-102 also the split to read"
    )
    command.add_argument(
        "--classes",
        metavar="FILE",
        help="the names of the classes in order: a text file with a name a line, or another split's manifest.json",
    )
    command.add_argument(
        "--labels",
        metavar="FILE",
        help="a table of images and their classes, such as CSV, or a public data set's own file of labels",
    )
    command.add_argument("--synsets", metavar="FILE", help="ImageNet's meta.mat, if --labels has the numbers that it defines")
    command.add_argument("--under", metavar="FOLDER", help="take only the images in this folder of the source")
    command.add_argument("--data-dir", metavar="DIR", help="the folder of the data that TFDS prepared, for tfds:")
    command.add_argument(
        "--max-side", type=int, metavar="N", help="make images with a longer side than N pixels smaller; 0: keep all as they are"
    )
    command.add_argument("--quality", type=int, metavar="Q", help="the quality of the JPEGs that --max-side makes, from 1 to 100")
    command.add_argument("--records-per-shard", type=int, metavar="N", help="the largest number of images in a shard")
    command.add_argument("--seed", type=int, help="the seed of the order of the images")
    _add_near_duplicate_options(command)
    command.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read or decoded; the manifest lists them"
    )
    command.add_argument("--skip-bad", dest="skip_unreadable", action=app.OldFlag, nargs=0, const=True)
    command.add_argument("--allow-empty-classes", action="store_true", help="accept classes without an image")
    command.add_argument(
        "--threads",
        type=int,
        help="how many shards are made at once; each is held in memory (default: one for each core)",
    )


def _add_near_duplicate_options(command: argparse.ArgumentParser) -> None:
    """Add the options about copies of images."""
    command.add_argument(
        "--drop-near-duplicates-of", nargs="+", action="extend", type=app.local_path, metavar="SOURCE",
        help="leave out copies of these images, such as a test set; SOURCE is KIND:PATH as in --from, or records:DIR/SPLIT",
    )  # fmt: skip
    command.add_argument(
        "--drop-near-duplicates-within", action="store_true",
        help="keep only the first of images that are copies of each other; reads all images twice; not for drawings of a few "
        "strokes such as MNIST, in which different digits can be taken for copies",
    )  # fmt: skip
    command.add_argument(
        "--near-duplicate-correlation", type=float, metavar="R",
        help="images are copies if their details, once aligned, correlate by at least R, from 0.7 to 1 "
        f"(default: {PreparationSpec.near_duplicate_correlation})",
    )  # fmt: skip
    command.add_argument(
        "--near-duplicate-detail", type=float, metavar="S",
        help="an image whose detail is below S is compared by its bytes alone; a blank image has 0, most photographs about 0.75 "
        f"(default: {PreparationSpec.near_duplicate_detail})",
    )  # fmt: skip


def prepare(arguments: argparse.Namespace) -> None:
    """Make, continue or repair a split or a part of it, join parts, or verify splits, as the arguments say. Raises UserError."""
    from mixer_jax.data.sources.manifest import Manifest, split_folders  # They import OpenCV and TensorFlow Datasets.
    from mixer_jax.preparation.in_bucket import join_in_bucket, prepare_in_bucket
    from mixer_jax.preparation.join import join
    from mixer_jax.preparation.prepare import prepare as prepare_shards
    from mixer_jax.preparation.prepare import prepare_part

    given = vars(arguments)
    part = parse_part(arguments.part) if "part" in given else None
    if part and "source" not in given:
        raise UserError("--part has no effect without --from.")
    if "verify" in given:
        for manifest in map(Manifest, split_folders(Path(arguments.verify))):
            manifest.check("whole")
            print(f"{manifest.directory}: {len(manifest.shards)} shards are whole")
        return
    if "to" not in given:
        raise UserError("--to DIR is missing: the folder to make, whose sub-folder SPLIT holds the shards.")
    to, threads, in_bucket = arguments.to, given.get("threads", os.cpu_count()), is_in_bucket(arguments.to)
    if "join" in given:
        _check_join(given)
        split, count = arguments.split, arguments.join
        print(join_in_bucket(to, split, count) if in_bucket else join(Path(to).expanduser() / split, count))
        return
    options = {field.name: given[field.name] for field in fields(PreparationSpec) if field.name in given}
    if "drop_near_duplicates_of" in options:
        options["drop_near_duplicates_of"] = tuple(options["drop_near_duplicates_of"])
    spec = PreparationSpec(**options)
    if in_bucket:
        print(prepare_in_bucket(spec, to, threads, part))
    else:
        print(prepare_part(spec, Path(to), threads, part) if part else prepare_shards(spec, Path(to), threads).summary())


def _check_join(given: dict[str, Any]) -> None:
    """Raise UserError for a number of --join that cannot be, or for options that have no effect with it."""
    if given["join"] < 1:
        raise UserError(f"--join {given['join']}: it must be the number of parts, at least 1.")
    check_split(given["split"])
    if extra := sorted(given.keys() - {"join", "to", "split", "tool", "overrides"}):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in extra)
        raise UserError(f"--join takes only --to and --split, because the parts know their options: leave out {named}.")
