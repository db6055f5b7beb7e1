"""Makes shards and their manifest from labeled images: `python -m mixer_jax prepare`.

The images are sorted by a keyed hash of their names and divided among shards of about equal length. Every shard, and every slice
of the split, is therefore a random sample of the classes. The order does not depend on that of the archive or the file system,
and a shard can be made alone, by any thread, at any time.

A preparation resumes shard by shard. A shard is written under a temporary name, synchronized to the disk, hashed and renamed.
Last, its row is written to .preparing/. When all rows are there, they become the manifest, and .preparing/ is removed. After a
kill, the same command makes the shards that have no row. If the split is finished, it makes the shards anew that are missing or
altered. The files contain no date, machine or number of threads, so the folder is the same, bit for bit, however often the
command was killed.

The bytes of images are kept, also those of CMYK JPEGs and of PNGs named .JPEG, because the content decides how an image is
decoded. With `--max-side N`, an image with a side longer than N is decoded to RGB, made smaller by averaging areas with the same
aspect ratio, and written as a JPEG of quality `--quality` without chroma subsampling. It keeps its name, and loses its EXIF data,
color profile and format.

Every image is decoded once, as a check. With `--drop-near-duplicates-of`, it is then compared with the images whose copies are
left out (references.py). With `--drop-near-duplicates-within`, all images are read once more before that, and are compared with
each other (within.py).
"""

import contextlib
import hashlib
import shutil
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from mixer_jax.data.sources.manifest import (
    MANIFEST,
    PLAN,
    UNFINISHED,
    Manifest,
    Shard,
    command_of,
    find_sound,
)
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.lease import HeldError, Lease
from mixer_jax.preparation.finishing import check_classes, make_manifest
from mixer_jax.preparation.inputs import Inputs, ListedInputs, open_inputs
from mixer_jax.preparation.make_shards import Preparation, make_shards
from mixer_jax.preparation.near_duplicates.pairs_page import PAGE, write_pairs_page
from mixer_jax.preparation.near_duplicates.references import References, write_list
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.storage import read_json, refuse_links, write_json

# The smallest --near-duplicate-correlation that is allowed. Pairs of images that correlate less after a shift by whole pixels are
# not aligned further (MIN_SHIFT_CORRELATION of alignment.py).
LEAST_CORRELATION = 0.7
# The entries of `made` that may change when a split is continued or repaired. The command may: older versions wrote --skip-bad
# for --skip-unreadable, and a source may have moved. The files that are no images of the split may too, because no shard has
# them.
NOT_COMPARED = ("command", "ignored_files", "ignored_kinds")


def prepare(spec: PreparationSpec, directory: Path, threads: int) -> Manifest:
    """Make, continue or repair the split directory/SPLIT, and return its manifest.

    Args:
        spec: The options.
        directory: The folder of all splits of the data set.
        threads: How many shards are made at once.

    Raises:
        UserError: The user must change an option, the source or the split first.
        EnvironmentFault: Another process is preparing the split.
    """
    check_spec(spec, threads)
    target = directory.expanduser() / spec.split
    inputs = _in_earlier_order(open_inputs(spec), spec, _read_made(target))
    check_classes(inputs.class_names, inputs.images_of_class(), spec)
    references = References(spec, target)
    with contextlib.closing(_lock(target)):
        made = {
            "command": spec.command(), "inputs_sha256": inputs.sha256(), "images": len(inputs),
            "ignored_files": sum(inputs.left_out.values()), "ignored_kinds": dict(sorted(inputs.left_out.items())),
            "max_side": spec.max_side, "quality": spec.quality, "seed": spec.seed,
            "records_per_shard": spec.records_per_shard, **references.manifest_fields(),
        }  # fmt: skip
        is_of_earlier_method = references.keep_earlier_method(made, _read_made(target))
        finished, stamps = _begin(target, made)
        order = shuffle(inputs, spec.seed)
        shard_images = np.array_split(order, -(-len(order) // spec.records_per_shard))
        missing = len(shard_images) - len(finished)
        if is_of_earlier_method and missing:
            raise UserError(
                f"{target} was begun by an earlier version of mixer_jax, which found near duplicates in another way, and "
                f"{missing} of its {len(shard_images)} shards are missing or altered. Make them with that "
                f"version, or choose another --to, or remove it: rm -r {target}"
            )
        preparation = Preparation(spec, inputs, references, target, shard_images, stamps)
        # Our threads use all cores. More threads, inside matrix products, would only wait for one.
        with threadpool_limits(1, "blas"):
            shards = make_shards(preparation, finished, threads)
        if spec.drops_near_duplicates:
            write_list(target, shards)
        write_json(target / MANIFEST, make_manifest(spec, inputs.class_names, made, target, shards), preparation.folder)
        shutil.rmtree(preparation.folder)
        manifest = Manifest(target)
        manifest.check("ends", show_progress=False)  # This finds shards that are not in the manifest.
        manifest.write_receipts(preparation.stamps)
        if spec.drops_near_duplicates and (missing or not (target / PAGE).exists()):
            write_pairs_page(target, inputs, references, shards)
    return manifest


def _lock(target: Path) -> Lease:
    """Make the folder if it is missing, and lock it for this process. Raises EnvironmentFault if another process has it."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        return Lease(target)
    except HeldError as error:
        raise EnvironmentFault(f"Another process is preparing {target}. Wait for it, or stop it.") from error


def check_spec(spec: PreparationSpec, threads: int) -> None:
    """Raise UserError if an option has a value that is not allowed, or has no effect with the other options."""
    if not spec.split or not spec.split.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"--split {spec.split!r}: it must be a name of letters, digits, - and _, such as train.")
    for option, value, least in (
        ("--records-per-shard", spec.records_per_shard, 1), ("--threads", threads, 1), ("--max-side", spec.max_side, 0),
        ("--seed", spec.seed, 0),
    ):  # fmt: skip
        if value < least:
            raise UserError(f"{option} {value}: it must be at least {least}.")
    if not 1 <= spec.quality <= 100:
        raise UserError(f"--quality {spec.quality}: it must be from 1 to 100.")
    if spec.quality != PreparationSpec.quality and not spec.max_side:
        raise UserError("--quality is that of images made smaller: give --max-side too. Without it all bytes are kept.")
    for name, least in (("near_duplicate_correlation", LEAST_CORRELATION), ("near_duplicate_detail", 0)):
        option, value = f"--{name.replace('_', '-')}", getattr(spec, name)
        if not least <= value <= 1:
            raise UserError(f"{option} {value}: it must be from {least} to 1.")
        if value != getattr(PreparationSpec, name) and not spec.drops_near_duplicates:
            raise UserError(f"{option} has no effect without --drop-near-duplicates-of or --drop-near-duplicates-within.")


def shuffle(inputs: Inputs, seed: int) -> np.ndarray:
    """Return the numbers of the images, int64 [N], sorted by a hash of their names that depends on the seed."""
    key = seed.to_bytes(8, "little")
    hashes = (hashlib.blake2b(inputs.name(i).encode(), digest_size=8, key=key).digest() for i in range(len(inputs)))
    return np.argsort(np.frombuffer(b"".join(hashes), "<u8"), kind="stable")


def _begin(target: Path, made: dict) -> tuple[dict[int, Shard], dict[str, str]]:
    """Write plan.json, and return the finished shards by their numbers and their stamps by their names.

    A shard is finished if it has a row and its bytes are those of the row. A stamp is the inode, size and times of a shard before
    it was hashed. Raises UserError if the folder contains another split.
    """
    folder = target / UNFINISHED
    _refuse_other(target, _read_made(target), made)
    if (target / MANIFEST).exists():
        rows = dict(enumerate(Manifest(target).shards))
    else:
        rows = {int(file.stem.removeprefix("shard-")): Shard(**read_json(file)) for file in folder.glob("shard-*.json")}
    refuse_links(folder)
    folder.mkdir(exist_ok=True)
    write_json(folder / PLAN, made)
    sound = find_sound(target, list(rows.values()))
    return {number: shard for number, shard in rows.items() if shard.name in sound}, sound


def _read_made(target: Path) -> dict:
    """Return the entry `made` of the split in a folder, finished or not, or an empty dict if there is none."""
    if (target / MANIFEST).exists():
        return Manifest(target).content["made"]
    return read_json(target / UNFINISHED / PLAN)


def _in_earlier_order(inputs: Inputs, spec: PreparationSpec, made: dict) -> Inputs:
    """Return the inputs, with their classes in the order of text if the split was begun that way.

    Older versions had only this order. `made` is the entry of this name of a split that was begun, or empty.
    """
    text_order = tuple(sorted(inputs.class_names))
    if made and not spec.classes and isinstance(inputs, ListedInputs) and inputs.class_names != text_order:
        earlier = inputs.in_order(text_order)
        if earlier.sha256() == made.get("inputs_sha256"):
            return earlier
    return inputs


def _refuse_other(target: Path, earlier: dict, made: dict) -> None:
    """Raise UserError if the folder contains a split, made with `earlier`, that is not the one to make, with `made`."""
    different = [name for name in earlier | made if name not in NOT_COMPARED and earlier.get(name) != made.get(name)]
    if earlier and different:
        raise UserError(
            f"{target} holds another split (other {', '.join(different)}), made by: {command_of(earlier, target)}. "
            f"Choose another --to or --split, or remove it: rm -r {target}"
        )
