"""Reads the records of a split in a bucket one by one, by ranges of the bytes of its shards, where a copy does not fit.

The index (record_index.py) says where each record lies. It is read at the start, into memory that the processes of this machine
share. Each record is one request. It is compared with its checksum and read again if it differs, because bytes may change on
their way.

A request takes long, and many can be under way at the same time. So the loader names the records of a whole task before it reads
the first of them (`prefetch`). Reads then start for all of them, up to AHEAD_BYTES for each thread.
"""

import hashlib
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from mixer_jax.bucket import Bucket
from mixer_jax.data.sources.bucket_split import explain_missing_object, read_manifest
from mixer_jax.data.sources.manifest import MANIFEST, Manifest, command_of
from mixer_jax.data.sources.record_index import ENTRY, INDEX, INDEX_SHA256
from mixer_jax.data.sources.riegeli import end_offset, without_block_headers
from mixer_jax.data.sources.shards import SplitReader, unpack_labels
from mixer_jax.data.stream.shared_memory import BatchMemory
from mixer_jax.errors import UserError

AHEAD_BYTES = 2**25  # Of records whose reads a thread has started and not yet used. 64 records of ImageNet have about 7 MB.
INDEX_RANGE_BYTES = 2**23  # Of the index, for one request.
TRIES = 3  # To read a record or the index, until its bytes have its checksum.


class RangeReader(SplitReader):
    """The images of a split in a bucket. Each is read from there when it is asked for."""

    OWN_OF_PROCESS = ("_bucket", "_ahead", "_memory")

    def __init__(self, url: str):
        """Open the split gs://BUCKET/PATH/SPLIT.

        Raises UserError if there is no such split, it may not be read, or it has no index or another one, and EnvironmentFault if
        the bucket does not answer.
        """
        manifest, _ = read_manifest(Bucket(url))
        if INDEX_SHA256 not in manifest.content:
            command = command_of(manifest.content["made"], f"DIR/{manifest.split}")
            raise UserError(
                f"{manifest.directory} has no index, which reading without a copy needs. An earlier version made it. The "
                f"same command adds {INDEX} and keeps the shards: {command}. Then upload {INDEX} and {MANIFEST}."
            )
        super().__init__(manifest)
        self._memory = BatchMemory({"entries": ((len(self) + len(manifest.shards),), ENTRY)}, shared=True)
        self._index = self._memory.allocate()
        _read_index(self._bucket, manifest, self._index["entries"])

    def _start_process(self) -> None:
        self._bucket, self._ahead = Bucket(self._directory), _Ahead()

    def prefetch(self, indices: Iterable[int]) -> None:
        """Start to read images that this thread will read next, in this order. Earlier reads that it did not use are dropped."""
        ahead = self._ahead
        ahead.waiting = deque(dict.fromkeys(map(self._find, indices)))
        ahead.started, ahead.free_bytes = {}, AHEAD_BYTES
        self._start_waiting()

    def _start_waiting(self) -> None:
        """Start the reads of this thread that wait, as far as AHEAD_BYTES allow. At least one of them is always under way."""
        ahead = self._ahead
        while ahead.waiting and (not ahead.started or self._size(*ahead.waiting[0]) <= ahead.free_bytes):
            record = ahead.waiting.popleft()
            ahead.free_bytes -= self._size(*record)
            ahead.started[record] = self._start(*record)

    def _take_started(self, shard: int, position: int) -> Callable[[], bytes | None] | None:
        """Return the read of a record that `prefetch` started for this thread, or None, and start others in its place."""
        if wait := self._ahead.started.pop((shard, position), None):
            self._ahead.free_bytes += self._size(shard, position)
            self._start_waiting()
        return wait

    def _start(self, shard: int, position: int) -> Callable[[], bytes | None]:
        """Start to read a record with the block headers in it, and return the function that waits for its bytes."""
        offset, size, _ = self._entry(shard, position)
        return self._bucket.start_read(self._name(shard), offset, end_offset(offset, size))

    def _read_record(self, shard: int, position: int) -> bytes:
        """Return a record. Raises UserError if it is not the one that was uploaded, and the errors of `Bucket.read`."""
        offset, size, checksum = self._entry(shard, position)
        started = self._take_started(shard, position)
        for _ in range(TRIES):
            content = (started or self._start(shard, position))()
            started = None
            if content is None:
                raise UserError(explain_missing_object(self._bucket, self._name(shard)))
            record = without_block_headers(content, offset)
            if (len(record), zlib.crc32(record)) == (size, checksum):
                return record
        raise UserError(
            f"{self._file(shard)} record {position} is not what {INDEX} there says: its CRC-32 differs. Upload the split again."
        )

    def _read_labels(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        images = self._images(shard)
        return unpack_labels(self._read_record(shard, images), images, self._file(shard))

    def _entry(self, shard: int, position: int) -> tuple[int, int, int]:
        """Return (offset, size, CRC-32) of a record. Before the entries of a shard, each earlier shard has one for its labels."""
        return self._index["entries"][self._starts[shard] + shard + position].item()

    def _size(self, shard: int, position: int) -> int:
        return self._entry(shard, position)[1]


class _Ahead(threading.local):
    """The reads ahead of one thread.

    Attributes:
      waiting: (shard, position) of the records whose reads have not started.
      started: {(shard, position): the function that waits for its bytes}.
      free_bytes: what is left of AHEAD_BYTES for further reads.
    """

    def __init__(self):
        self.waiting, self.started, self.free_bytes = deque(), {}, AHEAD_BYTES


def _read_index(bucket: Bucket, manifest: Manifest, entries: np.ndarray) -> None:
    """Read the index of a split into `entries`, ENTRY [all records]. Raises UserError if it is not that of the manifest."""
    content = entries.view(np.uint8)
    for _ in range(TRIES):
        for start in range(0, len(content), INDEX_RANGE_BYTES):
            stop = min(start + INDEX_RANGE_BYTES, len(content))
            if (part := bucket.read(INDEX, start, stop)) is None:
                raise UserError(explain_missing_object(bucket, INDEX))
            content[start:stop] = np.frombuffer(part, np.uint8)
        if hashlib.sha256(content).hexdigest() == manifest.content[INDEX_SHA256]:
            return
    raise UserError(f"{bucket.url}/{INDEX} is not the index of {MANIFEST} there: its SHA-256 differs. Upload both again.")
