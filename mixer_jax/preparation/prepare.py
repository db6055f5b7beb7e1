"""Makes shards and their manifest from labeled images: `python -m mixer_jax prepare`.

The images are sorted by a keyed hash of their names and divided among shards of about equal length. Every shard, and every slice
of the split, is therefore a random sample of the classes. The order does not depend on that of the archive or the file system,
and a shard can be made alone, by any thread, at any time.

A preparation resumes shard by shard. When a shard is written, its row is written to .preparing/. When all rows are there, they
become the manifest, and .preparing/ is removed. After a kill, the same command makes the shards that have no row. If the split is
finished, it makes the shards anew that are missing or altered. The files contain no date, machine or number of threads, so the
folder is the same, bit for bit, however often the command was killed.

With `--part I/N`, only the shards of a part are made (parts.py). When several machines have made all parts in one folder,
`--join N` makes the manifest from their rows (join.py), and the folder is the same as that of one machine. in_bucket.py does
all of this for a split in a bucket.

The bytes of images are kept, also those of CMYK JPEGs and of PNGs named .JPEG, because the content decides how an image is
decoded. With `--max-side N`, an image with a side longer than N is decoded to RGB, made smaller by averaging areas with the same
aspect ratio, and written as a JPEG of quality `--quality` without chroma subsampling. It keeps its name, and loses its EXIF data,
color profile and format.

Every image is decoded once, as a check. With `--drop-near-duplicates-of`, it is then compared with the images whose copies are
left out (references.py). With `--drop-near-duplicates-within`, all images are read once more before that, and are compared with
each other (within.py).
"""

import hashlib
from pathlib import Path

import numpy as np

from mixer_jax.data.sources.manifest import MANIFEST, Manifest, Shard
from mixer_jax.errors import UserError
from mixer_jax.preparation.finishing import check_classes, finish
from mixer_jax.preparation.inputs import Inputs, ListedInputs, open_inputs
from mixer_jax.preparation.make_shards import Preparation, make_shards
from mixer_jax.preparation.near_duplicates.pairs_page import PAGE, write_pairs_page
from mixer_jax.preparation.near_duplicates.references import References
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.spec import PreparationSpec, check_split
from mixer_jax.preparation.unfinished import Plan, begin, hold, read_made, refuse_other, remove_rest
from mixer_jax.preparation.upload import Upload

# The smallest --near-duplicate-correlation that is allowed. Pairs of images that correlate less after a shift by whole pixels are
# not aligned further (MIN_SHIFT_CORRELATION of alignment.py).
LEAST_CORRELATION = 0.7


def prepare(spec: PreparationSpec, directory: Path, threads: int, upload: Upload | None = None) -> Manifest:
    """Make, continue or repair the split directory/SPLIT, and return its manifest.

    Args:
        spec: The options.
        directory: The folder of all splits of the data set.
        threads: How many shards are made at once.
        upload: Moves the shards to a bucket as they are made, if the split is for one.

    Raises:
        UserError: The user must change an option, the source or the split first.
        EnvironmentFault: Another process is preparing the split.
    """
    preparation = _open(spec, directory, threads, upload=upload)
    target = preparation.target
    with hold(target) as lease:
        finished = _begin(preparation)
        missing = len(preparation.numbers) - len(finished)
        shards = make_shards(preparation, finished, threads)
        manifest = finish(target, preparation.plan, shards, {} if upload else preparation.stamps, lease)
    if spec.drops_near_duplicates and (missing or not (target / PAGE).exists()):
        write_pairs_page(target, preparation.inputs, preparation.references, shards)
    return manifest


def prepare_part(spec: PreparationSpec, directory: Path, threads: int, part: Part, upload: Upload | None = None) -> str:
    """Make or continue a part of the split directory/SPLIT, and return a line that says so.

    Several machines may make different parts at the same time. The arguments and errors are those of `prepare`.
    """
    if spec.drop_near_duplicates_within:
        raise UserError(
            "--drop-near-duplicates-within compares all images with each other, so no part can be made alone: leave out --part, "
            "and make this split on one machine."
        )
    preparation = _open(spec, directory, threads, part, upload)
    target, numbers = preparation.target, preparation.numbers
    if not numbers:
        return f"{target}: part {part} has nothing to make, as the split has {preparation.plan.num_shards} shards."
    made = None if (target / MANIFEST).exists() else _make_part(preparation, threads)
    if made is None:
        remove_rest(target)
        return f"{target} is finished, with all of its parts."
    return f"{target}: part {part} is finished, {len(numbers)} of {preparation.plan.num_shards} shards, {made} made now."


def _make_part(preparation: Preparation, threads: int) -> int | None:
    """Make the missing shards of a part, and return their number, or None if another process has just finished the split."""
    with hold(preparation.target, preparation.part):
        if (preparation.target / MANIFEST).exists():
            return None
        finished = _begin(preparation)
        missing = len(preparation.numbers) - len(finished)
        make_shards(preparation, finished, threads)
        return missing


def _open(
    spec: PreparationSpec, directory: Path, threads: int, part: Part | None = None, upload: Upload | None = None
) -> Preparation:
    """Return what the shards are made from, without changing the folder. Raises UserError as `prepare` does."""
    check_spec(spec, threads)
    target = directory.expanduser() / spec.split
    inputs = _in_earlier_order(open_inputs(spec), spec, read_made(target))
    check_classes(inputs.class_names, inputs.images_of_class(), spec.allow_empty_classes, spec.command())
    references = References(spec, target)
    made = {
        "command": spec.command(), "inputs_sha256": inputs.sha256(), "images": len(inputs),
        "ignored_files": sum(inputs.left_out.values()), "ignored_kinds": dict(sorted(inputs.left_out.items())),
        "max_side": spec.max_side, "quality": spec.quality, "seed": spec.seed,
        "records_per_shard": spec.records_per_shard, **references.manifest_fields(),
    }  # fmt: skip
    references.keep_earlier_method(made, read_made(target))
    refuse_other(target, made)
    plan = Plan(made, inputs.class_names, spec.allow_empty_classes)
    shard_images = np.array_split(shuffle(inputs, spec.seed), plan.num_shards)
    return Preparation(spec, inputs, references, target, plan, shard_images, {}, part, upload=upload)


def _begin(preparation: Preparation) -> dict[int, Shard]:
    """Return the finished shards among those to make. Raises UserError if others cannot be made by this version."""
    target, numbers, upload = preparation.target, preparation.numbers, preparation.upload
    if upload:
        upload.fetch_shards(preparation.plan, numbers)
    finished, stamps = begin(target, preparation.plan, numbers, "ends" if upload else "whole")
    preparation.stamps.update(stamps)
    if upload:
        upload.claim(preparation.plan)
    if isinstance(preparation.plan.made.get("near"), list) and len(finished) < len(numbers):
        raise UserError(
            f"{target} was begun by an earlier version of mixer_jax, which found near duplicates in another way, and "
            f"{len(numbers) - len(finished)} of its {len(numbers)} shards are missing or altered. Make them with that "
            f"version, or choose another --to, or remove it: rm -r {target}"
        )
    return finished


def check_spec(spec: PreparationSpec, threads: int) -> None:
    """Raise UserError if an option has a value that is not allowed, or has no effect with the other options."""
    check_split(spec.split)
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
