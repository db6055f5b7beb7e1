"""The index of a split tells where each record lies, is bound to the manifest, and is made again from whatever there is."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from preparation import miniature
from preparation.preparing import spec_of

from mixer_jax.data.sources import manifest
from mixer_jax.data.sources.manifest import MANIFEST, Manifest
from mixer_jax.data.sources.record_index import ENTRY, INDEX, INDEX_SHA256, index_shard
from mixer_jax.data.sources.riegeli import end_offset, without_block_headers
from mixer_jax.data.sources.shards import open_shard, write_shard
from mixer_jax.errors import UserError
from mixer_jax.preparation import indexing
from mixer_jax.preparation.join import join
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.prepare import prepare, prepare_part


def entries_of(split: Path) -> np.ndarray:
    return np.frombuffer((split / INDEX).read_bytes(), ENTRY)


def test_it_has_the_bytes_and_the_checksum_of_each_record_and_of_the_labels(tmp_path):
    prepare(spec_of(tmp_path), tmp_path / "to", 2)
    entries, split = iter(entries_of(tmp_path / "to/train").tolist()), tmp_path / "to/train"
    for shard in Manifest(split).shards:
        content, reader = (split / shard.name).read_bytes(), open_shard(str(split / shard.name), shard.records)
        for record in reader.read(list(range(shard.records + 1))):
            offset, size, checksum = next(entries)
            assert without_block_headers(content[offset : end_offset(offset, size)], offset) == record
            assert (len(record), zlib.crc32(record)) == (size, checksum)
    assert list(entries) == []


def test_a_file_with_fewer_records_or_other_chunks_is_not_indexed(tmp_path):
    write_shard(tmp_path / "a", [("a.jpg", (0,), b"image")])
    assert len(index_shard(tmp_path / "a", 1)) == 2
    with pytest.raises(UserError, match=r"/a cannot be indexed \(the chunk at byte .*no shard that `prepare` wrote"):
        index_shard(tmp_path / "a", 2)
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:120])
    with pytest.raises(UserError, match=r"/b cannot be indexed"):
        index_shard(tmp_path / "b", 1)


def without_index(split: Path) -> None:
    """Make a split one of an earlier version."""
    content = json.loads((split / MANIFEST).read_text())
    del content[INDEX_SHA256]
    (split / MANIFEST).write_text(json.dumps(content))
    (split / INDEX).unlink()


CHANGES = {
    "an earlier version": without_index,
    "a missing index": lambda split: (split / INDEX).unlink(),
    "a shorter index": lambda split: (split / INDEX).write_bytes((split / INDEX).read_bytes()[:-16]),
    "a longer index": lambda split: (split / INDEX).write_bytes((split / INDEX).read_bytes() + b"!"),
    "a damaged index": lambda split: (split / INDEX).write_bytes(b"!" + (split / INDEX).read_bytes()[1:]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_same_command_adds_it_and_keeps_the_shards(tmp_path, change):
    spec = spec_of(tmp_path)
    prepare(spec, tmp_path / "to", 2)
    before = miniature.folder_bytes(tmp_path / "to")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "to/train").glob("*.array_record")}
    change(tmp_path / "to/train")
    if change is not without_index:
        with pytest.raises(UserError, match=rf"{INDEX} is missing or altered\. Copy it again, or make it anew"):
            Manifest(tmp_path / "to/train").check("whole")
    prepare(spec, tmp_path / "to", 2)
    assert miniature.folder_bytes(tmp_path / "to") == before
    assert {file: file.stat().st_mtime_ns for file in times} == times
    Manifest(tmp_path / "to/train").check("whole")


def test_a_shard_that_is_made_anew_is_the_only_one_that_is_read_for_it(tmp_path, monkeypatch):
    spec = spec_of(tmp_path)
    prepare(spec, tmp_path / "to", 2)
    before = miniature.folder_bytes(tmp_path / "to")
    next((tmp_path / "to/train").glob("*.array_record")).unlink()
    monkeypatch.setattr(indexing, "index_shard", None)  # It cannot be called.
    prepare(spec, tmp_path / "to", 2)
    assert miniature.folder_bytes(tmp_path / "to") == before


ENTRIES = "shard-000001.index"
DAMAGES = {
    "no file": lambda file: file.unlink(),
    "an empty file": lambda file: file.write_bytes(b""),
    "a longer file": lambda file: file.write_bytes(file.read_bytes() + b"!"),
    "another byte": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"!"),
    "the entries of another shard": lambda file: file.write_bytes((file.parent / "shard-000002.index").read_bytes()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_entries_of_a_part_that_are_damaged_are_read_from_the_shard(tmp_path, damage):
    spec = spec_of(tmp_path)
    for number in (1, 2):
        prepare_part(spec, tmp_path / "to", 2, Part(number, 2))
    damage(tmp_path / "to/train/.preparing" / ENTRIES)
    join(tmp_path / "to/train", 2)
    prepare(spec, tmp_path / "one", 2)
    assert miniature.folder_bytes(tmp_path / "to") == miniature.folder_bytes(tmp_path / "one")


def test_a_shard_that_is_altered_between_its_ends_is_not_indexed(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "END_BYTES", 64)
    spec = spec_of(tmp_path)
    for number in (1, 2):
        prepare_part(spec, tmp_path / "to", 2, Part(number, 2))
    (tmp_path / "to/train/.preparing" / ENTRIES).unlink()
    shard = sorted((tmp_path / "to/train").glob("*.array_record"))[1]
    content = bytearray(shard.read_bytes())
    content[300] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard.name} is altered, or not all of it is there.*rm {shard}"):
        join(tmp_path / "to/train", 2)
    shard.unlink()
    prepare(spec, tmp_path / "to", 2)
    Manifest(tmp_path / "to/train").check("whole")
