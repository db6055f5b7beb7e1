"""The size that an ArrayRecord file unpacks to, and the places of its records, wherever they fall among the blocks of 64 KiB."""

import hashlib
import itertools
import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from data.sources.prepared import opened

from mixer_jax.data.sources import manifest
from mixer_jax.data.sources.riegeli import (
    BLOCK,
    BLOCK_HEADER,
    end_offset,
    read_records,
    unpacked_size,
    without_block_headers,
)
from mixer_jax.errors import UserError

USABLE = BLOCK - BLOCK_HEADER


def write(file, records: list[bytes], options: str) -> int:
    writer = ArrayRecordWriter(str(file), options)
    for record in records:
        writer.write(record)
    writer.close()
    return sum(map(len, records))


AROUND_BLOCKS = [[USABLE - 104 + more, 5, USABLE + more, 7] for more in range(-90, 90, 9)]


@pytest.mark.parametrize("sizes", [[], [0], [1] * 300, *AROUND_BLOCKS, [3 * BLOCK, 0, 2 * BLOCK]], ids=str)
@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:1", "group_size:3"])
def test_the_size_is_that_of_the_records_and_a_small_index(tmp_path, sizes, options):
    records = [np.random.default_rng(size).bytes(size) for size in sizes]
    total = write(tmp_path / "a", records, options)
    assert total <= unpacked_size(tmp_path / "a") <= total + 150 + 40 * len(sizes)


@pytest.mark.parametrize("sizes", [[], [0], [1] * 300, *AROUND_BLOCKS, [3 * BLOCK, 0, 2 * BLOCK], [USABLE - 64] * 9], ids=str)
def test_each_record_is_cut_out_of_its_range_of_the_file(tmp_path, sizes):
    records = [np.random.default_rng(size).bytes(size) for size in sizes]
    write(tmp_path / "a", records, "group_size:1,uncompressed")
    content = (tmp_path / "a").read_bytes()
    found = list(itertools.islice(read_records(tmp_path / "a"), len(records)))
    assert [record for _, record in found] == records
    for offset, record in found:
        assert without_block_headers(content[offset : end_offset(offset, len(record))], offset) == record
    with pytest.raises(ValueError, match="is not one record that is not packed"):
        list(read_records(tmp_path / "a"))


@pytest.mark.parametrize("options", ["group_size:1", "group_size:3,uncompressed"])
def test_records_that_are_packed_or_share_a_chunk_are_not_taken_apart(tmp_path, options):
    write(tmp_path / "a", [bytes(100)] * 3, options)
    with pytest.raises(ValueError, match="the chunk at byte 64 is not one record that is not packed"):
        list(read_records(tmp_path / "a"))


def test_zeros_that_fill_the_memory_are_seen_before_they_are_read(copy):
    """A shard of a megabyte of compressed zeros in place of one of ours, with the digests that belong to it."""
    shard = copy / "train/train-00003-of-00008.array_record"
    shard.unlink()
    write(shard, [bytes(10**8)] * 5, "group_size:1")
    content = json.loads((copy / "train/manifest.json").read_text())
    row = content["shards"][3]
    row["bytes"], row["sha256"] = shard.stat().st_size, hashlib.sha256(shard.read_bytes()).hexdigest()
    row["ends_sha256"] = manifest.ends_sha256(shard)
    (copy / "train/manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="would unpack to much more than its size"):
        opened(copy)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 200_001])
def test_what_ends_within_a_header_is_no_array_record(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=r"header|empty"):
        unpacked_size(tmp_path / "a")
