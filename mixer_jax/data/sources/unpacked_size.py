"""Computes the size of the records of an ArrayRecord file after unpacking, from its headers alone.

ArrayRecord files are Riegeli files, which consist of chunks (github.com/google/riegeli, the records file format). A chunk begins
with a header of five fields of 8 bytes: digest of the header, size of the data, digest of the data, type and number of records,
and size of the unpacked data. Every 64 KiB, the file has a block header of 24 bytes, which does not belong to a chunk.
"""

import mmap
import struct
from pathlib import Path

from mixer_jax.storage import open_regular

BLOCK, BLOCK_HEADER = 2**16, 24
CHUNK_HEADER = struct.Struct("<5Q")


def unpacked_size(file: Path) -> int:
    """Return the sum of the unpacked sizes that the chunks' headers state. Raises ValueError if the file ends within a header."""
    total, offset = 0, 0
    with open_regular(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while offset < len(data):
            header = _read(data, offset, CHUNK_HEADER.size)
            if len(header) < CHUNK_HEADER.size:
                raise ValueError("it ends within a header")
            _, size, _, type_and_records, unpacked = CHUNK_HEADER.unpack(header)
            total += unpacked
            # A chunk has at least one byte for each of its records.
            offset = max(_end_offset(offset, CHUNK_HEADER.size + size), offset + (type_and_records >> 8))
    return total


def _read(data: mmap.mmap, offset: int, size: int) -> bytes:
    """Return `size` bytes that begin at `offset`, without block headers, or fewer if the file ends before."""
    parts = b""
    while len(parts) < size and offset < len(data):
        offset += BLOCK_HEADER if offset % BLOCK == 0 else 0
        part = data[offset : min(offset + size - len(parts), -(-(offset + 1) // BLOCK) * BLOCK)]
        parts, offset = parts + part, offset + len(part)
    return parts


def _end_offset(start: int, size: int) -> int:
    """Return the offset at which `size` bytes end that begin at the offset `start` and have block headers between them."""
    usable = BLOCK - BLOCK_HEADER
    return start + size + (size + (start + usable - 1) % BLOCK) // usable * BLOCK_HEADER
