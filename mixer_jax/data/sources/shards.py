"""Reads and writes our own shards: the ArrayRecord files of one split.

manifest.py checks that a split is complete and unchanged. The package preparation makes shards. The name of a shard is, for
example:

    DIR/SPLIT/SPLIT-00003-of-00626.array_record

Each image is a record, which consists of a header `<HHB` (number of bytes of its name, number of its labels, whether PartialJpeg
may decode it), the labels as int32, the name in UTF-8, and the bytes of the image file. The last record of a shard has the number
of labels of each image, then the labels of all images, as int32. So labels can be read without the images.

The memory used does not grow with the split. For an open shard, ArrayRecord keeps the positions of all images in memory, about 10
bytes per image. So a shard is opened only when it is read, and the number of open shards is limited: they hold at most
INDEXED_IMAGES images in all processes that decode together, and are at most half of the files that a process may open. If a
split has more shards, the least recently used one is closed. To open it again takes two more reads of 125 KiB together, and 0.1
ms of CPU time. `python -m benchmarks.memory` measures this.
"""

import os
import resource
import struct
from array import array
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.data.images.partial_jpeg import supports_partial_decoding
from mixer_jax.data.sources.image_files import as_os_error
from mixer_jax.data.sources.manifest import MANIFEST, Manifest, shard_name
from mixer_jax.errors import EnvironmentFault, UserError

# The open shards of a split hold at most this many images. Their positions take about 160 MB. All of ImageNet-21k fits.
INDEXED_IMAGES = 2**24
SHARD_OVERHEAD = 256  # An open shard takes additional memory, as much as the positions of this many images.
MOST_FILES = 2**20  # The limit of open files is raised to at most this number.
sharing_processes = 1  # This many processes read the same split, and share INDEXED_IMAGES between them.
MOST_LABELS = 2**16 - 1  # The header of a record counts labels, and bytes of the name, in 16 bits each.
_HEAD = struct.Struct("<HHB")


class Entry(NamedTuple):
    """The content of an image's record.

    Attributes:
      name: the name of the image in the data that were prepared.
      labels: the numbers of its classes.
      image: the bytes of its file.
      partially_decodable: whether PartialJpeg may decode it.
    """

    name: str
    labels: tuple[int, ...]
    image: bytes
    partially_decodable: bool


def pack(name: str, labels: tuple[int, ...], image: bytes) -> bytes:
    """Return the record of an image. Raises UserError if it has more labels, or a longer name, than a record can hold."""
    encoded = name.encode()
    if max(len(labels), len(encoded)) > MOST_LABELS:
        raise UserError(
            f"{name[:100]} has {len(labels)} labels and a name of {len(encoded)} bytes: at most {MOST_LABELS} of each."
        )
    head = _HEAD.pack(len(encoded), len(labels), supports_partial_decoding(image))
    return head + np.asarray(labels, "<i4").tobytes() + encoded + image


def unpack(record: bytes) -> Entry:
    """Return the content of a record. Raises struct.error or UnicodeDecodeError for bytes that `pack` did not make."""
    name_bytes, num_labels, partially_decodable = _HEAD.unpack_from(record)
    labels = struct.unpack_from(f"<{num_labels}i", record, _HEAD.size)
    start = _HEAD.size + 4 * num_labels
    return Entry(record[start : start + name_bytes].decode(), labels, record[start + name_bytes :], bool(partially_decodable))


def write_shard(file: Path, records: list[tuple[str, tuple[int, ...], bytes]]) -> None:
    """Write a shard of (name, labels, image) in order, and flush it to the disk. Equal records give equal bytes.

    Raises EnvironmentFault if the file cannot be written, for example because the disk is full.
    """
    counts = [len(labels) for _, labels, _ in records]
    labels = [label for _, labels, _ in records for label in labels]
    try:
        with as_os_error(str(file)):
            # The records are not compressed, because the images are already.
            writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
            for record in records:
                writer.write(pack(*record))
            writer.write(np.asarray(counts + labels, "<i4").tobytes())
            writer.close()
    except RuntimeError as error:
        raise EnvironmentFault(f"{file} cannot be written: {error}. Make room and run the command again, it goes on.") from error
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class SplitReader:
    """The images of a split, in random access, wherever its shards lie. A subclass reads the bytes of a record.

    Many threads may read at the same time.

    Attributes:
      class_names: the names of the classes.
      max_labels: the largest number of labels that an image has.
      identity: a digest of all bytes of the shards.
    """

    OWN_OF_PROCESS: tuple[str, ...]  # The attributes that each process has for itself, so that they are not pickled.

    def __init__(self, manifest: Manifest):
        self.class_names, self.max_labels, self.identity = manifest.class_names, manifest.max_labels, manifest.identity()
        self._directory, self._split = manifest.directory, manifest.split
        self._starts = array("q", np.cumsum([0, *(shard.records for shard in manifest.shards)]).tolist())
        self._labels = -1, None, None  # (number of a shard, *labels of its images): one is enough, as labels are read in order.
        self._start_process()

    def _start_process(self) -> None:
        """Set the attributes of OWN_OF_PROCESS."""
        raise NotImplementedError

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in self.OWN_OF_PROCESS}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._start_process()

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, index: int) -> Entry:
        """Return the content of an image's record.

        Raises UnreadableImageError if the record does not have the form that `pack` gives it, and the errors of `_read_record`.
        """
        try:
            return unpack(self._read_record(*self._find(index)))
        except (struct.error, UnicodeDecodeError) as error:
            raise UnreadableImageError(f"no record that `prepare` wrote ({error})") from error

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of an image, without reading the image."""
        shard, position = self._find(index)
        read = self._labels
        if read[0] != shard:
            read = self._labels = shard, *self._read_labels(shard)
        _, ends, labels = read
        return tuple(labels[ends[position] : ends[position + 1]].tolist())

    def locate(self, index: int) -> str:
        """Return the file or the URL of an image's shard, and the image's position in it."""
        shard, position = self._find(index)
        return f"{self._file(shard)} record {position}"

    def key(self, index: int) -> str:
        """Return the name of an image's shard, and the image's position in it."""
        shard, position = self._find(index)
        return f"{self._name(shard)}/{position}"

    def _read_record(self, shard: int, position: int) -> bytes:
        """Return the record of the image at a position in a shard."""
        raise NotImplementedError

    def _read_labels(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of all images of a shard, as `unpack_labels` does."""
        raise NotImplementedError

    def _find(self, index: int) -> tuple[int, int]:
        """Return (number of the shard, position of the image in it)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _images(self, shard: int) -> int:
        return self._starts[shard + 1] - self._starts[shard]

    def _name(self, shard: int) -> str:
        return shard_name(self._split, shard, len(self._starts) - 1)

    def _file(self, shard: int) -> str:
        return f"{self._directory}/{self._name(shard)}"


class ShardReader(SplitReader):
    """The images of a split on a disk. tests/data checks that many threads may use an ArrayRecordReader."""

    OWN_OF_PROCESS = ("_open_shard",)

    def __init__(self, directory: Path, verify: str):
        """Open the split in `directory`, and check its shards as `verify` says: "full" or "ends" (see manifest.py)."""
        manifest = Manifest(directory)
        manifest.check(verify)
        super().__init__(manifest)

    def _start_process(self) -> None:
        most_images = max(map(self._images, range(len(self._starts) - 1)))
        # A shard that the cache drops while a thread reads it stays open until that thread releases it.
        self._open_shard = lru_cache(maxsize=max_open_shards(most_images))(open_shard)

    def _read_record(self, shard: int, position: int) -> bytes:
        """Return a record. Raises UserError if the shard was damaged after it was checked, and OSError if it cannot be read."""
        file = self._file(shard)
        try:
            with as_os_error(file):
                return self._open_shard(file, self._images(shard)).read([position])[0]
        except RuntimeError as error:  # ArrayRecord found a wrong checksum.
            raise UserError(f"{file} record {position} has changed on the disk since it was checked: {error}") from error

    def _read_labels(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        return read_labels(self._file(shard), self._images(shard))


def open_shard(file: str, images: int) -> ArrayRecordReader:
    """Open a shard that holds `images` images.

    Raises UserError if it is damaged or holds another number of images, and OSError if the file cannot be opened.
    """
    # By default, ArrayRecord would read a megabyte at the end of the shard, for an index of a few kilobytes.
    options = "readahead_buffer_size:0,footer_prefetch_bytes:0"
    reader = ArrayRecordReader(file, options=options, file_reader_buffer_size=32768)
    try:
        with as_os_error(file):
            if not reader.ok():
                reader.close()  # This raises a RuntimeError that gives the reason.
    except RuntimeError as error:
        raise UserError(f"{file} cannot be opened: {error}") from error
    if reader.num_records() != images + 1:
        raise UserError(f"{file} does not hold the {images} images that {MANIFEST} gives it. Copy it again.")
    return reader


def read_labels(file: str, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of all images of a shard, as `unpack_labels` does. Raises its errors, and those of `open_shard`."""
    with as_os_error(file):
        return unpack_labels(open_shard(file, images).read([images])[0], images, file)


def unpack_labels(packed: bytes, images: int, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of all images of a shard, from the record that has them, as (ends, labels).

    The labels of image i are labels[ends[i] : ends[i + 1]]. `ends` is int64 [images + 1], and `labels` is int32 [all labels].
    Raises UserError, which names `file`, if the record is not that of the labels of so many images.
    """
    numbers = np.frombuffer(packed[: len(packed) // 4 * 4], "<i4")
    ends = np.concatenate([[0], np.cumsum(numbers[:images], dtype=np.int64)])
    if len(ends) != images + 1 or np.any(np.diff(ends) < 0) or ends[-1] != len(numbers) - images:
        raise UserError(f"{file} does not hold the labels of its {images} images. Copy it again.")
    return ends, numbers[images:]


def max_open_shards(images: int) -> int:
    """Return how many shards of up to `images` images a split may have open. Raises this process's limit of open files for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(INDEXED_IMAGES // sharing_processes // (images + SHARD_OVERHEAD), allowed // 2))
