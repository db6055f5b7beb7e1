"""Makes the index of a split, DIR/SPLIT/index.bin, which data/sources/record_index.py describes.

The entries of a shard are written to .preparing/ when the shard is made, because all bytes of it must be read for them. A split
that is finished or repaired takes them from there, and those of other shards from the index that it has. Only the shards of
earlier versions, which made no index, are read once more.
"""

import contextlib
import hashlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mixer_jax.data.sources.manifest import MANIFEST, UNFINISHED, Manifest, Shard, sha256
from mixer_jax.data.sources.record_index import ENTRY, INDEX, INDEX_SHA256, index_shard
from mixer_jax.errors import UserError
from mixer_jax.records import Progress
from mixer_jax.storage import read_bytes, write_whole

DIGEST_BYTES = hashlib.sha256().digest_size


def write_entries(target: Path, number: int, shard: Shard, entries: np.ndarray) -> None:
    """Write the entries of a shard that was made, ENTRY [its images + 1], with a digest that binds them to the shard."""
    content = entries.tobytes()
    with write_whole(entries_file(target, number)) as temporary:
        temporary.write_bytes(_digest(shard, content) + content)


def write_index(target: Path, shards: list[Shard]) -> str:
    """Write the index of a split, and return its SHA-256. Raises UserError for a shard that must be read and is altered.

    Args:
        target: The folder of the split.
        shards: The rows of all shards, in order.
    """
    earlier = _read_earlier(target)
    entries = {}
    for number, shard in enumerate(shards):
        entries[number] = earlier.get(shard.sha256) or _read_entries(target, number, shard)
    _index_missing(target, shards, entries)
    content = b"".join(entries.values())
    with write_whole(target / INDEX, target / UNFINISHED) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _index_missing(target: Path, shards: list[Shard], entries: dict[int, bytes | memoryview | None]) -> None:
    """Read the shards whose entries are None, and put their entries in the place of None."""
    missing = [number for number, content in entries.items() if content is None]
    if not missing:
        return
    progress = Progress(len(missing), 0, unit="shard")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        indexed = threads.map(lambda number: _index_whole(target, shards[number]), missing)
        for done, (number, found) in enumerate(zip(missing, indexed, strict=True), 1):
            entries[number] = found.tobytes()
            progress.update(done)
    progress.close()


def _index_whole(target: Path, shard: Shard) -> np.ndarray:
    """Return the entries of a shard. Raises UserError if its bytes are not those of its row: their checksums would fit them."""
    file = target / shard.name
    if sha256(file) != shard.sha256:
        raise UserError(
            f"{file} is altered, or not all of it is there, so its part of {INDEX} cannot be made. Remove it, and type its "
            f"command again: rm {file}"
        )
    return index_shard(file, shard.records)


def _read_earlier(target: Path) -> dict[str, memoryview]:
    """Return {SHA-256 of a shard: its entries} in the index of a finished split, or nothing if it has no index that is whole."""
    if not (target / MANIFEST).exists():
        return {}
    manifest = Manifest(target)
    sizes = [(shard.records + 1) * ENTRY.itemsize for shard in manifest.shards]
    content = _read(target / INDEX, sum(sizes))
    if hashlib.sha256(content).hexdigest() != manifest.content.get(INDEX_SHA256):
        return {}
    parts = zip(manifest.shards, sizes, itertools.accumulate(sizes), strict=True)
    return {shard.sha256: memoryview(content)[end - size : end] for shard, size, end in parts}


def _read_entries(target: Path, number: int, shard: Shard) -> bytes | None:
    """Return the entries that `write_entries` wrote for a shard, or None if there are none that belong to it."""
    content = _read(entries_file(target, number), DIGEST_BYTES + (shard.records + 1) * ENTRY.itemsize)
    digest, entries = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return entries if digest == _digest(shard, entries) else None


def _read(file: Path, size: int) -> bytes:
    """Return the content of a file, or nothing if there is no such file or it is larger than `size`: it can be made again."""
    with contextlib.suppress(FileNotFoundError, UserError):
        return read_bytes(file, size)
    return b""


def entries_file(target: Path, number: int) -> Path:
    """Return the file of the entries of a shard."""
    return target / UNFINISHED / f"shard-{number:06d}.index"


def _digest(shard: Shard, entries: bytes) -> bytes:
    """Return a digest of the entries of a shard and of the shard's bytes."""
    return hashlib.sha256(shard.sha256.encode() + entries).digest()
