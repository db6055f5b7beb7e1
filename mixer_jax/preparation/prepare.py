"""`python -m mixer_jax prepare`: labelled images from anywhere -> shards and their manifest (manifest.py, shards.py).

Which image goes where: images are put in the order of a keyed hash of their names and cut into shards of equal length. So every
shard, and every slice of the split, is a random sample of the classes; the order depends on neither the archive's nor the file
system's; and a shard can be made alone, by any thread, in any order.

A shard is the unit of work and of resuming: written under a temporary name, down to the disk, hashed, renamed, and last its row
is written to .preparing/; when all rows are there they become the manifest, and .preparing/ goes. After a kill the same command
makes what has no row. On a finished split it makes those shards anew that are missing or altered. The files hold no date, machine
or number of threads: however often it was killed, the folder ends bitwise the same.

Images are read in the order of the source, forwards, and held until their shard is written: memory is about the bytes of a shard
for each thread. Threads do, as reading, hashing, decoding and writing release the interpreter's lock.

Bytes are kept as they are, CMYK JPEGs and PNGs named .JPEG included: decoding goes by content. With `--max-side N` an image with
a side longer than N is decoded (to RGB), made smaller by averaging areas, the aspect kept, and written as a JPEG of `--quality`,
with full colour resolution; its EXIF, colour profile and format are lost, its name stays. Every image is decoded once as a check,
and with `--drop-near-duplicates-of` compared with those that must not be among them (references.py). With
`--drop-near-duplicates-within` all are read once before, and compared with each other (within.py).
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
from mixer_jax.preparation.near_duplicates.references import References, write_list
from mixer_jax.preparation.near_duplicates.within import find_duplicates
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.records import Progress
from mixer_jax.storage import read_json, refuse_links, write_json, write_whole

LEAST_CORRELATION = 0.7  # pairs with less are not aligned
# Of a split that is mended. Older versions wrote --skip-bad for --skip-unreadable, and a source may have moved; files that are no
# images of the split are in no shard.
NOT_COMPARED = ("command", "ignored_files", "ignored_kinds")
SHOWN = 5  # unreadable images in a message


class Work(NamedTuple):
    """What the shards of a split are made of, and where."""

    spec: PreparationSpec
    inputs: Inputs
    references: References
    target: Path  # DIR/SPLIT
    pieces: list[np.ndarray]  # the numbers of each shard's images, in the shard's order
    stamps: dict[str, str]  # of the shards whose bytes were hashed, from before that; the threads add theirs
    duplicates: dict[str, list] | None = None  # the manifest's rows of all copies by their names; None: found shard by shard

    @property
    def folder(self) -> Path:
        """Where what is not finished lies."""
        return self.target / UNFINISHED


def prepare(spec: PreparationSpec, directory: Path, threads: int) -> Manifest:
    """Make, complete or mend directory/SPLIT. Raises UserError for what the user must mend first."""
    check_spec(spec, threads)
    target = directory.expanduser() / spec.split
    inputs = _in_earlier_order(open_inputs(spec), spec, _made_before(target))
    check_classes(inputs.class_names, inputs.images_of_class(), spec)
    references = References(spec, target)
    with contextlib.closing(_take(target)):
        made = {
            "command": spec.command(), "inputs_sha256": inputs.sha256(), "images": len(inputs),
            "ignored_files": sum(inputs.left_out.values()), "ignored_kinds": dict(sorted(inputs.left_out.items())),
            "max_side": spec.max_side, "quality": spec.quality, "seed": spec.seed,
            "records_per_shard": spec.records_per_shard, **references.manifest_fields(),
        }  # fmt: skip
        is_of_earlier_method = references.keep_earlier_method(made, _made_before(target))
        finished, stamps = _begin(target, made)
        order = shuffle(inputs, spec.seed)
        pieces = np.array_split(order, -(-len(order) // spec.records_per_shard))
        if is_of_earlier_method and len(finished) < len(pieces):
            raise UserError(
                f"{target} was begun by an earlier version of mixer_jax, which found near duplicates in another way, and "
                f"{len(pieces) - len(finished)} of its {len(pieces)} shards are missing or altered. Make them with that "
                f"version, or choose another --to, or remove it: rm -r {target}"
            )
        work = Work(spec, inputs, references, target, pieces, stamps)
        with threadpool_limits(1, "blas"):  # Threads of matrix products beside ours would only wait for a core.
            shards = _make_shards(work, finished, threads)
        if spec.drops_near_duplicates:
            write_list(target, shards)
        write_json(target / MANIFEST, make_manifest(spec, inputs.class_names, made, target, shards), work.folder)
        shutil.rmtree(work.folder)
        manifest = Manifest(target)
        manifest.check("ends", show_progress=False)  # mostly for a shard too many
        manifest.write_receipts(work.stamps)
    return manifest


def _take(target: Path) -> Lease:
    """Make the folder if it is missing, and take it for this process."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        return Lease(target)
    except HeldError as error:
        raise EnvironmentFault(f"Another process is preparing {target}. Wait for it, or stop it.") from error


def check_spec(spec: PreparationSpec, threads: int) -> None:
    """Raise UserError for an option that cannot be."""
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
    """Raise UserError for two of one name, and for classes without an image, unless they are allowed or not known yet."""
    if twice := [name for name, count in Counter(class_names).items() if count > 1]:
        raise UserError(f"{spec.source} has two classes of one name, {twice[0]!r}: name them differently, with --classes.")
    if images_of_class is None or spec.allow_empty_classes:
        return
    empty = [name for name, count in zip(class_names, images_of_class, strict=True) if count == 0]
    if empty:
        raise UserError(
            f"{len(empty)} of {len(class_names)} classes have no image, the first is {empty[0]!r}. Add images, "
            f"take it out of --classes, or keep it: {spec.command()} --allow-empty-classes"
        )


def shuffle(inputs: Inputs, seed: int) -> np.ndarray:
    """Return [N], the numbers of the images in the order of a hash of their names."""
    key = seed.to_bytes(8, "little")
    hashes = (hashlib.blake2b(inputs.name(i).encode(), digest_size=8, key=key).digest() for i in range(len(inputs)))
    return np.argsort(np.frombuffer(b"".join(hashes), "<u8"), kind="stable")


def _begin(target: Path, made: dict) -> tuple[dict[int, Shard], dict[str, str]]:
    """Return the finished shards by number, and their stamps. Raises UserError when the folder holds another split."""
    folder = target / UNFINISHED
    _refuse_other(target, _made_before(target), made)
    if (target / MANIFEST).exists():
        rows = dict(enumerate(Manifest(target).shards))
    else:
        rows = {int(file.stem.removeprefix("shard-")): Shard(**read_json(file)) for file in folder.glob("shard-*.json")}
    refuse_links(folder)
    folder.mkdir(exist_ok=True)
    write_json(folder / PLAN, made)
    sound = find_sound(target, list(rows.values()))
    return {number: shard for number, shard in rows.items() if shard.name in sound}, sound


def _made_before(target: Path) -> dict:
    """Return how the split in a folder was made or begun to be; nothing where there is none."""
    if (target / MANIFEST).exists():
        return Manifest(target).content["made"]
    return read_json(target / UNFINISHED / PLAN)


def _in_earlier_order(inputs: Inputs, spec: PreparationSpec, before: dict) -> Inputs:
    """Return the inputs, their classes in the order of text where an older version, which knew no other, has begun the split."""
    of_text = tuple(sorted(inputs.class_names))
    if before and not spec.classes and isinstance(inputs, ListedInputs) and inputs.class_names != of_text:
        earlier = inputs.in_order(of_text)
        if earlier.sha256() == before.get("inputs_sha256"):
            return earlier
    return inputs


def _refuse_other(target: Path, found: dict, made: dict) -> None:
    different = [name for name in found | made if name not in NOT_COMPARED and found.get(name) != made.get(name)]
    if found and different:
        raise UserError(
            f"{target} holds another split (other {', '.join(different)}), made by: {command_of(found, target)}. "
            f"Choose another --to or --split, or remove it: rm -r {target}"
        )


def _make_shards(work: Work, finished: dict[int, Shard], threads: int) -> list[Shard]:
    """Make the shards that are not `finished`; return all in order.

    All unreadable images are found before the first is complained of, unless --skip-unreadable leaves them out.
    """
    missing = [number for number in range(len(work.pieces)) if number not in finished]
    if missing:
        work = _prepare_to_compare(work, threads)
    progress, unreadable = Progress(sum(map(len, work.pieces)), 0, unit="image"), []
    done = sum(len(work.pieces[number]) for number in finished)
    progress.update(done)
    with ThreadPoolExecutor(threads) as pool:
        jobs = {pool.submit(_make_shard, work, number): number for number in missing}
        try:
            for job in as_completed(jobs):
                number, shard = jobs[job], job.result()
                finished[number] = shard
                unreadable += shard.left_out
                done += len(work.pieces[number])
                progress.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            progress.close()
    if unreadable and not work.spec.skip_unreadable:
        shown = "".join(f"\n  {name}: {why}" for name, why in sorted(unreadable)[:SHOWN])
        more = f"\n  and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
        command = f"{work.spec.command()} --skip-unreadable --to {work.target.parent}"
        raise UserError(f"{len(unreadable)} images cannot be read:{shown}{more}\nMend them, or leave them out: {command}")
    return [finished[number] for number in range(len(work.pieces))]


def _prepare_to_compare(work: Work, threads: int) -> Work:
    """Return the work with what finding copies needs: the references' fingerprints, or all rows of copies."""
    if not work.spec.drop_near_duplicates_within:
        work.references.hash_all(threads)
        return work
    if (work.target / MANIFEST).exists():  # a finished split is mended: it lists them
        rows = {row[0]: list(row) for shard in Manifest(work.target).shards for row in shard.duplicates}
    else:
        work.references.hash_all(threads)
        rows = find_duplicates(work.inputs, work.references, work.spec, work.folder, threads)
    return work._replace(duplicates=rows)


def _make_shard(work: Work, number: int) -> Shard:
    """Write a shard and its row; with unreadable images and without --skip-unreadable neither."""
    spec, inputs, references, target, pieces, stamps, known = work
    records, left_out, reencoded, compared = {}, [], set(), {}
    for image, data, labels in inputs.read(sorted(pieces[number].tolist())):
        name = inputs.name(image)
        try:
            pixels = decode_input(data, labels, len(inputs.class_names))
        except UserError as error:
            left_out.append([name, str(error)])
            continue
        kept = shrink_if_large(data, pixels, spec.max_side, spec.quality)
        reencoded |= {image} if kept is not data else set()
        records[image] = (name, labels, kept)
        if known is None and spec.drop_near_duplicates_of:
            compared[image] = name, hashlib.sha256(data).digest(), fingerprint_image(pixels, spec.near_duplicate_detail)
    if known is None:
        rows = dict(zip(compared, references.find(list(compared.values())), strict=True))
    else:
        rows = {image: known.get(name) for image, (name, *_) in records.items()}
    duplicates = {image: row for image, row in rows.items() if row is not None}
    records = {image: record for image, record in records.items() if image not in duplicates}
    name = shard_name(spec.split, number, len(pieces))
    if left_out and not spec.skip_unreadable:
        return Shard(name, 0, 0, "", "", 0, left_out)
    with write_whole(target / name, work.folder) as temporary:
        write_shard(temporary, [records[image] for image in pieces[number].tolist() if image in records])
        written = temporary.stat().st_mtime_ns
        digests = sha256(temporary), ends_sha256(temporary)
        counts = temporary.stat().st_size, len(records), *digests, len(reencoded - duplicates.keys())
        shard = Shard(name, *counts, sorted(left_out), sorted(duplicates.values()))
    stamp = stamp_of(target / name)
    if (target / name).stat().st_mtime_ns == written:  # and not changed while it was hashed
        stamps[name] = stamp
    write_json(work.folder / f"shard-{number:06d}.json", shard._asdict())
    return shard


def shrink_if_large(data: bytes, image: np.ndarray, max_side: int, quality: int) -> bytes:
    """Return `data` or, of an image with a longer side than `max_side`, a smaller JPEG."""
    if not max_side or max(image.shape) <= max_side:
        return data
    smaller = resize_large(image, max_side)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(smaller), quality=quality, colorspace="RGB", colorsubsampling="444")


def make_manifest(spec: PreparationSpec, class_names: tuple[str, ...], made: dict, target: Path, shards: list[Shard]) -> dict:
    """Return the content of manifest.json. Raises UserError when no image is left, or none of a class."""
    images_of_class, most, single = np.zeros(len(class_names), np.int64), 0, True
    for shard in shards:
        ends, labels = read_labels(str(target / shard.name), shard.records)
        counts = np.diff(ends)
        images_of_class += np.bincount(labels, minlength=len(class_names))
        most = max(most, int(counts.max(initial=0)))
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
        "max_labels": max(1, most),
        "classes": len(class_names),
        "class_names": list(class_names),
        "images_of_class": images_of_class.tolist(),
        "shards": [shard._asdict() for shard in shards],
    }
