"""How large the records of an ArrayRecord file are once they are unpacked, from its headers alone.

ArrayRecord stands on Riegeli, whose files are chunks one after the other (github.com/google/riegeli, the records file format). A
chunk has a header of 40 bytes: digest of the header, size of the data, digest of the data, type and number of records, size of
the data once unpacked, 8 bytes each. Every 64 KiB the file has a block header of 24 bytes, which belongs to no chunk.
"""

import mmap
import struct
from pathlib import Path

from mixer_jax.storage import open_regular

BLOCK, BLOCK_HEADER = 2**16, 24
CHUNK_HEADER = struct.Struct("<5Q")


def unpacked_size(file: Path) -> int:
    """Return how many bytes the file says that all its chunks unpack to. Raises ValueError where it has no such form."""
    total, at = 0, 0
    with open_regular(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while at < len(data):
            header = _read(data, at, CHUNK_HEADER.size)
            if len(header) < CHUNK_HEADER.size:
                raise ValueError("it ends within a header")
            _, size, _, type_and_records, unpacked = CHUNK_HEADER.unpack(header)
            total += unpacked
            at = max(_end(at, CHUNK_HEADER.size + size), at + (type_and_records >> 8))  # at least a byte a record
    return total


def _read(data: mmap.mmap, at: int, size: int) -> bytes:
    """Return `size` bytes from an offset on, without the headers of blocks."""
    parts = b""
    while len(parts) < size and at < len(data):
        at += BLOCK_HEADER if at % BLOCK == 0 else 0
        part = data[at : min(at + size - len(parts), -(-(at + 1) // BLOCK) * BLOCK)]
        parts, at = parts + part, at + len(part)
    return parts


def _end(start: int, size: int) -> int:
    """Return where `size` bytes end that begin at an offset, with the headers of blocks between them."""
    usable = BLOCK - BLOCK_HEADER
    return start + size + (size + (start + usable - 1) % BLOCK) // usable * BLOCK_HEADER
