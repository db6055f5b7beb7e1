"""Makes the shards of a split: reads images, checks, shrinks and compares them, and writes each shard with its row.

The images of a shard are read in the order of the source and held until the shard is written. Each thread therefore needs about
as much memory as a shard has bytes. Threads suffice, because reading, hashing, decoding and writing release the interpreter's
lock.

A shard is written under a temporary name, synchronized to the disk, hashed, indexed and renamed. Then its part of the index is
written to .preparing/, and last its row. If the split is for a bucket, all of them are then uploaded.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from threadpoolctl import threadpool_limits

from mixer_jax.data.images.resize import resize_large
from mixer_jax.data.sources.manifest import MANIFEST, UNFINISHED, Manifest, Shard, command_of, ends_sha256, sha256, shard_name
from mixer_jax.data.sources.receipts import stamp_of
from mixer_jax.data.sources.record_index import index_shard
from mixer_jax.data.sources.shards import write_shard
from mixer_jax.errors import UserError
from mixer_jax.preparation.indexing import write_entries
from mixer_jax.preparation.inputs import Inputs, decode_input
from mixer_jax.preparation.near_duplicates.fingerprint import fingerprint_image
from mixer_jax.preparation.near_duplicates.references import References
from mixer_jax.preparation.near_duplicates.within import find_duplicates
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.preparation.unfinished import Plan, write_row
from mixer_jax.preparation.upload import Upload
from mixer_jax.records import Progress
from mixer_jax.storage import write_whole

SHOWN = 5  # the most unreadable images that a message names


class Preparation(NamedTuple):
    """Everything that the shards of a split are made from."""

    spec: PreparationSpec
    inputs: Inputs
    references: References
    target: Path  # DIR/SPLIT
    plan: Plan  # the content of plan.json
    shard_images: list[np.ndarray]  # the numbers of each shard's images, in the order of the shard
    stamps: dict[str, str]  # {shard: its inode, size and times before its bytes were hashed}; the threads add to it
    part: Part | None = None  # the part of the split that is made; None: all of it
    duplicates: dict[str, list] | None = None  # {name: row in the manifest} of all copies; None: found shard by shard
    upload: Upload | None = None  # moves the shards to a bucket as they are made; None: they stay

    @property
    def numbers(self) -> range:
        """The numbers of the shards to make."""
        return self.part.shards(len(self.shard_images)) if self.part else range(len(self.shard_images))

    def num_images(self, numbers: Iterable[int]) -> int:
        """Return how many images the shards with these numbers are made from."""
        return sum(len(self.shard_images[number]) for number in numbers)


def make_shards(preparation: Preparation, finished: dict[int, Shard], threads: int) -> list[Shard]:
    """Make the shards of the split, or of its part, that are not in `finished`, and return all of them in order.

    Raises UserError if images cannot be read and --skip-unreadable was not given. This error comes last, so that it counts all
    such images.
    """
    # Our threads use all cores. More threads, inside matrix products, would only wait for one.
    with threadpool_limits(1, "blas"):
        unreadable = _make_missing(preparation, finished, threads)
    if unreadable and not preparation.spec.skip_unreadable:
        shown = "".join(f"\n  {name}: {why}" for name, why in sorted(unreadable)[:SHOWN])
        more = f"\n  and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
        command = f"{command_of(preparation.plan.made, preparation.target)} --skip-unreadable"
        leave = f"in every part: {command} --part {preparation.part}" if preparation.part else command
        raise UserError(f"{len(unreadable)} images cannot be read:{shown}{more}\nMend them, or leave them out: {leave}")
    return [finished[number] for number in preparation.numbers]


def _make_missing(preparation: Preparation, finished: dict[int, Shard], threads: int) -> list:
    """Make the shards that are not in `finished`, add them to it, and return [name, what is wrong] of each unreadable image."""
    missing = [number for number in preparation.numbers if number not in finished]
    if missing:
        preparation = _prepare_to_compare(preparation, threads)
    progress, unreadable = Progress(preparation.num_images(preparation.numbers), 0, unit="image"), []
    done = preparation.num_images(finished)
    progress.update(done)
    with ThreadPoolExecutor(threads) as pool:
        futures = {pool.submit(_make_and_move, preparation, number): number for number in missing}
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
    return unreadable


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
        folder = preparation.target / UNFINISHED
        rows = find_duplicates(preparation.inputs, preparation.references, preparation.spec, folder, threads)
    return preparation._replace(duplicates=rows)


def _make_and_move(preparation: Preparation, number: int) -> Shard:
    """Write a shard and its row, as `_make_shard`, and move it to the bucket if the split is for one."""
    shard = _make_shard(preparation, number)
    if preparation.upload and shard.bytes:  # Without bytes, the row only lists unreadable images.
        preparation.upload.move(number, shard)
    return shard


def _make_shard(preparation: Preparation, number: int) -> Shard:
    """Write a shard and its row, and return the row.

    If images are unreadable and --skip-unreadable was not given, nothing is written, and the returned row only lists them.
    """
    spec, inputs, references, target, plan, shard_images, stamps, _, known_duplicates, _ = preparation
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
    with write_whole(target / name, preparation.target / UNFINISHED) as temporary:
        write_shard(temporary, [records[image] for image in shard_images[number].tolist() if image in records])
        written = temporary.stat().st_mtime_ns
        digests = sha256(temporary), ends_sha256(temporary)
        counts = temporary.stat().st_size, len(records), *digests, len(reencoded - duplicates.keys())
        shard = Shard(name, *counts, sorted(left_out), sorted(duplicates.values()))
        entries = index_shard(temporary, len(records))
    stamp = stamp_of(target / name)
    if (target / name).stat().st_mtime_ns == written:  # It was not changed while it was hashed.
        stamps[name] = stamp
    write_entries(target, number, shard, entries)
    write_row(target, number, shard, plan)
    return shard


def shrink_if_large(data: bytes, image: np.ndarray, max_side: int, quality: int) -> bytes:
    """Return the file `data` of an image or, if a side of the image is longer than `max_side`, a smaller JPEG.

    `max_side` is in pixels; 0 means that no image is too large.
    """
    if not max_side or max(image.shape) <= max_side:
        return data
    smaller = resize_large(image, max_side)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(smaller), quality=quality, colorspace="RGB", colorsubsampling="444")
