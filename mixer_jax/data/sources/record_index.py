"""The index of a split: where each record lies in its shard, and a checksum of it, so that a record can be read alone.

DIR/SPLIT/index.bin has an entry of 16 bytes for each record, shard by shard in the order of the manifest. The entries of a shard
are those of its images and then that of its labels. The manifest has the SHA-256 of the file as "index_sha256". A split that an
earlier version of mixer_jax prepared has neither. The same `prepare` command adds both, and keeps the shards.
"""

import itertools
import zlib
from pathlib import Path

import numpy as np

from mixer_jax.data.sources.riegeli import read_records
from mixer_jax.errors import UserError

INDEX, INDEX_SHA256 = "index.bin", "index_sha256"
# The offset of a record's first byte in the file of its shard, the size of the record without the block headers that lie between
# its bytes, and the CRC-32 of these bytes.
ENTRY = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("crc32", "<u4")])


def index_shard(file: Path, images: int) -> np.ndarray:
    """Return the entries of a shard that holds `images` images, ENTRY [images + 1]. The whole file is read.

    Raises UserError if the file is not a shard that `prepare` wrote.
    """
    try:
        records = itertools.islice(read_records(file), images + 1)
        entries = [(offset, len(record), zlib.crc32(record)) for offset, record in records]
        if len(entries) <= images:
            raise ValueError(f"it has {len(entries)} records and not {images + 1}")
    except ValueError as error:
        raise UserError(f"{file} cannot be indexed ({error}): it is no shard that `prepare` wrote. Make it anew.") from error
    return np.array(entries, ENTRY)
