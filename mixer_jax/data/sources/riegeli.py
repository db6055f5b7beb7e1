"""The layout of an ArrayRecord file: how large its records are after unpacking, and where they lie in the file.

ArrayRecord files are Riegeli files, which consist of chunks (github.com/google/riegeli, the records file format). A chunk begins
with a header of five fields of 8 bytes: digest of the header, size of the data, digest of the data, type and number of records,
and size of the unpacked data. Every 64 KiB, the file has a block header of 24 bytes, which does not belong to a chunk.

The first chunk is the signature of the file, without data. In a shard that `prepare` wrote, each record is a chunk of its own,
which is not packed: its data end with the bytes of the record.
"""

import itertools
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixer_jax.storage import open_regular

BLOCK, BLOCK_HEADER = 2**16, 24
USABLE = BLOCK - BLOCK_HEADER
CHUNK_HEADER = struct.Struct("<5Q")
RECORDS = ord("r")  # The type of a chunk that has records.
NOT_PACKED = b"\0"  # The first byte of the data of a chunk that is not compressed.


class Chunk(NamedTuple):
    """A chunk of a file.

    Attributes:
      offset: where the chunk begins in the file.
      data_bytes: the size of its data.
      type: the type of the chunk, such as RECORDS.
      records: the number of its records.
      unpacked_bytes: the size of its records after unpacking, as its header states it.
    """

    offset: int
    data_bytes: int
    type: int
    records: int
    unpacked_bytes: int


def read_chunks(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the chunks of a file in order. Raises ValueError if the file ends within a header."""
    offset = 0
    while offset < len(data):
        header = _read(data, offset, CHUNK_HEADER.size)
        if len(header) < CHUNK_HEADER.size:
            raise ValueError("it ends within a header")
        _, size, _, type_and_records, unpacked = CHUNK_HEADER.unpack(header)
        records = type_and_records >> 8
        yield Chunk(offset, size, type_and_records & 0xFF, records, unpacked)
        # A chunk has at least one byte for each of its records.
        offset = max(end_offset(_skip_block_header(offset), CHUNK_HEADER.size + size), offset + records)


def unpacked_size(file: Path) -> int:
    """Return the sum of the unpacked sizes that the chunks' headers state. Raises ValueError if the file ends within a header."""
    with open_regular(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return sum(chunk.unpacked_bytes for chunk in read_chunks(data))


def read_records(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset of the first byte in the file, bytes) of each record.

    Raises ValueError at the first chunk that is not one record as `prepare` writes it. Behind the records, this is ArrayRecord's
    own list of them.
    """
    with open_regular(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for chunk in itertools.islice(read_chunks(data), 1, None):
            content = _read(data, chunk.offset, CHUNK_HEADER.size + chunk.data_bytes)[CHUNK_HEADER.size :]
            if (chunk.type, chunk.records, content[:1]) != (RECORDS, 1, NOT_PACKED) or len(content) < chunk.data_bytes:
                raise ValueError(f"the chunk at byte {chunk.offset} is not one record that is not packed")
            prefix = chunk.data_bytes - chunk.unpacked_bytes
            yield _skip_block_header(end_offset(_skip_block_header(chunk.offset), CHUNK_HEADER.size + prefix)), content[prefix:]


def end_offset(start: int, size: int) -> int:
    """Return where `size` bytes of chunks end in a file, with the block headers between them.

    `start` is the offset of the first of these bytes, so it lies in no block header.
    """
    return start + size + max(0, start % BLOCK - BLOCK_HEADER + size - 1) // USABLE * BLOCK_HEADER


def without_block_headers(content: bytes, start: int) -> bytes:
    """Return the bytes of a file that begin at the offset `start`, which lies in no block header, without block headers."""
    first = -start % BLOCK  # The number of bytes up to the next block.
    blocks = (content[at + BLOCK_HEADER : at + BLOCK] for at in range(first, len(content), BLOCK))
    return b"".join((content[:first], *blocks))


def _read(data: mmap.mmap, offset: int, size: int) -> bytes:
    """Return `size` bytes that begin at `offset`, without block headers, or fewer if the file ends before."""
    start = _skip_block_header(offset)
    return without_block_headers(data[start : end_offset(start, size)], start)


def _skip_block_header(offset: int) -> int:
    """Return the offset of the first byte at or after `offset` that is not of a block header, if no header lies around it."""
    return offset + BLOCK_HEADER if offset % BLOCK == 0 else offset
