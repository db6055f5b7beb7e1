"""Makes shards and their manifest from labeled images: `python -m mixer_jax prepare`.

The images are sorted by a keyed hash of their names and divided among shards of about equal length. Every shard, and every slice
of the split, is therefore a random sample of the classes. The order does not depend on that of the archive or the file system,
and a shard can be made alone, by any thread, at any time.

A preparation resumes shard by shard. A shard is written under a temporary name, synchronized to the disk, hashed and renamed.
Last, its row is written to .preparing/. When all rows are there, they become the manifest, and .preparing/ is removed. After a
kill, the same command makes the shards that have no row. If the split is finished, it makes the shards anew that are missing or
altered. The files contain no date, machine or number of threads, so the folder is the same, bit for bit, however often the
command was killed.

The images of a shard are read in the order of the source and held until the shard is written. Each thread therefore needs about
as much memory as a shard has bytes. Threads suffice, because reading, hashing, decoding and writing release the interpreter's
lock.

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
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from threadpoolctl import threadpool_limits

from mixer_jax.data.images.resize import resize_large
from mixer_jax.data.sources.manifest import (
    FORMAT,
    MANIFEST,
    PLAN,
    UNFINISHED,
    Manifest,
    Shard,
    command_of,
    ends_sha256,
    find_sound,
    sha256,
    shard_name,
)
from mixer_jax.data.sources.receipts import stamp_of
from mixer_jax.data.sources.shards import read_labels, write_shard
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.lease import HeldError, Lease
from mixer_jax.preparation.inputs import Inputs, ListedInputs, decode_input, open_inputs
from mixer_jax.preparation.near_duplicates.fingerprint import fingerprint_image
from mixer_jax.preparation.near_duplicates.pairs_page import PAGE, write_pairs_page
from mixer_jax.preparation.near_duplicates.references import References, write_list
from mixer_jax.preparation.near_duplicates.within import find_duplicates
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.records import Progress
from mixer_jax.storage import read_json, refuse_links, write_json, write_whole

# The smallest --near-duplicate-correlation that is allowed. Pairs of images that correlate less after a shift by whole pixels are
# not aligned further (MIN_SHIFT_CORRELATION of alignment.py).
LEAST_CORRELATION = 0.7
# The entries of `made` that may change when a split is continued or repaired. The command may: older versions wrote --skip-bad
# for --skip-unreadable, and a source may have moved. The files that are no images of the split may too, because no shard has
# them.
NOT_COMPARED = ("command", "ignored_files", "ignored_kinds")
SHOWN = 5  # the most unreadable images that a message names


class Preparation(NamedTuple):
    """Everything that the shards of a split are made from."""

    spec: PreparationSpec
    inputs: Inputs
    references: References
    target: Path  # DIR/SPLIT
    shard_images: list[np.ndarray]  # the numbers of each shard's images, in the order of the shard
    stamps: dict[str, str]  # {shard: its inode, size and times before its bytes were hashed}; the threads add to it
    duplicates: dict[str, list] | None = None  # {name: row in the manifest} of all copies; None: found shard by shard

    @property
    def folder(self) -> Path:
        """The folder .preparing/ of unfinished files."""
        return self.target / UNFINISHED


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
            shards = _make_shards(preparation, finished, threads)
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


def check_classes(class_names: tuple[str, ...], images_of_class: np.ndarray | None, spec: PreparationSpec) -> None:
    """Raise UserError for two classes of the same name, or for a class without an image.

    The latter is checked only if `images_of_class`, int64 [K], is known and `spec` does not allow it.
    """
    if repeated := [name for name, count in Counter(class_names).items() if count > 1]:
        raise UserError(f"{spec.source} has two classes of one name, {repeated[0]!r}: name them differently, with --classes.")
    if images_of_class is None or spec.allow_empty_classes:
        return
    empty = [name for name, count in zip(class_names, images_of_class, strict=True) if count == 0]
    if empty:
        raise UserError(
            f"{len(empty)} of {len(class_names)} classes have no image, the first is {empty[0]!r}. Add images, "
            f"take it out of --classes, or keep it: {spec.command()} --allow-empty-classes"
        )


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


def _make_shards(preparation: Preparation, finished: dict[int, Shard], threads: int) -> list[Shard]:
    """Make the shards that are not in `finished`, and return all shards in order.

    Raises UserError if images cannot be read and --skip-unreadable was not given. This error comes last, so that it counts all
    such images.
    """
    missing = [number for number in range(len(preparation.shard_images)) if number not in finished]
    if missing:
        preparation = _prepare_to_compare(preparation, threads)
    progress, unreadable = Progress(sum(map(len, preparation.shard_images)), 0, unit="image"), []
    done = sum(len(preparation.shard_images[number]) for number in finished)
    progress.update(done)
    with ThreadPoolExecutor(threads) as pool:
        futures = {pool.submit(_make_shard, preparation, number): number for number in missing}
        try:
            for future in as_completed(futures):
                number, shard = futures[future], future.result()
                finished[number] = shard
                unreadable += shard.left_out
                done += len(preparation.shard_images[number])
                progress.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            progress.close()
    if unreadable and not preparation.spec.skip_unreadable:
        shown = "".join(f"\n  {name}: {why}" for name, why in sorted(unreadable)[:SHOWN])
        more = f"\n  and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
        command = f"{preparation.spec.command()} --skip-unreadable --to {preparation.target.parent}"
        raise UserError(f"{len(unreadable)} images cannot be read:{shown}{more}\nMend them, or leave them out: {command}")
    return [finished[number] for number in range(len(preparation.shard_images))]


def _prepare_to_compare(preparation: Preparation, threads: int) -> Preparation:
    """Do the part of the search for copies that precedes the shards, and return `preparation` with its result.

    Copies of references are found shard by shard, for which the references are fingerprinted now. Copies within the split are all
    found now.
    """
    if not preparation.spec.drop_near_duplicates_within:
        preparation.references.hash_all(threads)
        return preparation
    if (preparation.target / MANIFEST).exists():  # The split is repaired. Its manifest lists the copies.
        rows = {row[0]: list(row) for shard in Manifest(preparation.target).shards for row in shard.duplicates}
    else:
        preparation.references.hash_all(threads)
        rows = find_duplicates(preparation.inputs, preparation.references, preparation.spec, preparation.folder, threads)
    return preparation._replace(duplicates=rows)


def _make_shard(preparation: Preparation, number: int) -> Shard:
    """Write a shard and its row, and return the row.

    If images are unreadable and --skip-unreadable was not given, nothing is written, and the returned row only lists them.
    """
    spec, inputs, references, target, shard_images, stamps, known_duplicates = preparation
    records, left_out, reencoded, compared = {}, [], set(), {}
    for image, data, labels in inputs.read(sorted(shard_images[number].tolist())):
        name = inputs.name(image)
        try:
            pixels = decode_input(data, labels, len(inputs.class_names))
        except UserError as error:
            left_out.append([name, str(error)])
            continue
        kept = shrink_if_large(data, pixels, spec.max_side, spec.quality)
        reencoded |= {image} if kept is not data else set()
        records[image] = (name, labels, kept)
        if known_duplicates is None and spec.drop_near_duplicates_of:
            compared[image] = name, hashlib.sha256(data).digest(), fingerprint_image(pixels, spec.near_duplicate_detail)
    if known_duplicates is None:
        rows = dict(zip(compared, references.find(list(compared.values())), strict=True))
    else:
        rows = {image: known_duplicates.get(name) for image, (name, *_) in records.items()}
    duplicates = {image: row for image, row in rows.items() if row is not None}
    records = {image: record for image, record in records.items() if image not in duplicates}
    name = shard_name(spec.split, number, len(shard_images))
    if left_out and not spec.skip_unreadable:
        return Shard(name, 0, 0, "", "", 0, left_out)
    with write_whole(target / name, preparation.folder) as temporary:
        write_shard(temporary, [records[image] for image in shard_images[number].tolist() if image in records])
        written = temporary.stat().st_mtime_ns
        digests = sha256(temporary), ends_sha256(temporary)
        counts = temporary.stat().st_size, len(records), *digests, len(reencoded - duplicates.keys())
        shard = Shard(name, *counts, sorted(left_out), sorted(duplicates.values()))
    stamp = stamp_of(target / name)
    if (target / name).stat().st_mtime_ns == written:  # It was not changed while it was hashed.
        stamps[name] = stamp
    write_json(preparation.folder / f"shard-{number:06d}.json", shard._asdict())
    return shard


def shrink_if_large(data: bytes, image: np.ndarray, max_side: int, quality: int) -> bytes:
    """Return the file `data` of an image or, if a side of the image is longer than `max_side`, a smaller JPEG.

    `max_side` is in pixels; 0 means that no image is too large.
    """
    if not max_side or max(image.shape) <= max_side:
        return data
    smaller = resize_large(image, max_side)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(smaller), quality=quality, colorspace="RGB", colorsubsampling="444")


def make_manifest(spec: PreparationSpec, class_names: tuple[str, ...], made: dict, target: Path, shards: list[Shard]) -> dict:
    """Return the content of manifest.json. Raises UserError if no image is left, or if a class that must have images has none."""
    images_of_class, max_labels, single = np.zeros(len(class_names), np.int64), 0, True
    for shard in shards:
        ends, labels = read_labels(str(target / shard.name), shard.records)
        counts = np.diff(ends)
        images_of_class += np.bincount(labels, minlength=len(class_names))
        max_labels = max(max_labels, int(counts.max(initial=0)))
        single = single and bool(np.all(counts == 1))
    records, kinds = sum(shard.records for shard in shards), [row[1] for shard in shards for row in shard.duplicates]
    if not records:
        raise UserError(
            f"{spec.source} has no sound image left for {target}, of {made['images']}, {len(kinds)} of which are duplicates: "
            "mend its images, or prepare another source."
        )
    check_classes(class_names, images_of_class, spec)
    return {
        "format": FORMAT,
        "split": spec.split,
        "made": made,
        "records": records,
        "left_out": sum(len(shard.left_out) for shard in shards),
        "reencoded": sum(shard.reencoded for shard in shards),
        "duplicates": {kind: kinds.count(kind) for kind in ("exact", "near")},
        "label_kind": "single" if single else "multi",
        "max_labels": max(1, max_labels),
        "classes": len(class_names),
        "class_names": list(class_names),
        "images_of_class": images_of_class.tolist(),
        "shards": [shard._asdict() for shard in shards],
    }
