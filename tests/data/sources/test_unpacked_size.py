"""The size that an ArrayRecord file unpacks to is read from its headers, wherever they fall among the blocks of 64 KiB."""

import hashlib
import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from data.sources.prepared import opened

from mixer_jax.data.sources import manifest
from mixer_jax.data.sources.unpacked_size import BLOCK, BLOCK_HEADER, unpacked_size
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
