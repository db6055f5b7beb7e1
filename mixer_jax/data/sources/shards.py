"""Our own shards: one split as ArrayRecord files. What a split is and that it is whole: manifest.py. Making them: preparation/.

    DIR/SPLIT/SPLIT-00003-of-00626.array_record

Each image is a record: `<HHB` (bytes of its name, number of its labels, whether PartialJpeg may decode it), the labels as int32,
the name in UTF-8, the image file's bytes. One more record ends the shard, int32: the number of labels of each image, then all
labels in a row. So labels are read without the images.

Memory does not grow with the split. An open shard keeps the place of each of its images in memory, about 10 bytes an image. So
shards are opened when they are read, and those that may be open at once are bounded: INDEXED_IMAGES in all processes that decode,
and half the files that a process may have. Where a split has more, the one used least recently is closed, and opened again when
an image of it is wanted: two reads more, of 125 KiB together, and 0.1 ms of CPU. `python -m benchmarks.memory` measures it.
"""

import itertools
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

INDEXED_IMAGES = 2**24  # of a split's open shards: about 160 MB, and enough for all of ImageNet-21k
SHARD_OVERHEAD = 256  # an open shard takes as much memory as the places of so many images, beside those of its own
MOST_FILES = 2**20
sharing_processes = 1  # that read the same split and divide INDEXED_IMAGES among them
MOST_LABELS = 2**16 - 1  # of an image, as its record counts them
_HEAD = struct.Struct("<HHB")


class Entry(NamedTuple):
    name: str
    labels: tuple[int, ...]
    image: bytes
    partially_decodable: bool


def pack(name: str, labels: tuple[int, ...], image: bytes) -> bytes:
    """Return a record's bytes. Raises UserError for more labels, or a longer name, than a record can have."""
    encoded = name.encode()
    if max(len(labels), len(encoded)) > MOST_LABELS:
        raise UserError(
            f"{name[:100]} has {len(labels)} labels and a name of {len(encoded)} bytes: at most {MOST_LABELS} of each."
        )
    head = _HEAD.pack(len(encoded), len(labels), supports_partial_decoding(image))
    return head + np.asarray(labels, "<i4").tobytes() + encoded + image


def unpack(record: bytes) -> Entry:
    name_bytes, num_labels, partially_decodable = _HEAD.unpack_from(record)
    labels = struct.unpack_from(f"<{num_labels}i", record, _HEAD.size)
    start = _HEAD.size + 4 * num_labels
    return Entry(record[start : start + name_bytes].decode(), labels, record[start + name_bytes :], bool(partially_decodable))


def write_shard(file: Path, records: list[tuple[str, tuple[int, ...], bytes]]) -> None:
    """Write (name, labels, image) in order, down to the disk. Equal records give equal bytes."""
    counts = [len(labels) for _, labels, _ in records]
    labels = [label for _, labels, _ in records for label in labels]
    try:
        with as_os_error(str(file)):
            writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")  # images are compressed already
            for record in records:
                writer.write(pack(*record))
            writer.write(np.asarray(counts + labels, "<i4").tobytes())
            writer.close()
    except RuntimeError as error:
        raise EnvironmentFault(f"{file} cannot be written: {error}. Make room and run the command again, it goes on.") from error
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class ShardReader:
    """Random access to the images of a split, by many threads at once (an ArrayRecordReader allows it: tests/data)."""

    def __init__(self, directory: Path, verify: str):
        manifest = Manifest(directory)
        manifest.check(verify)
        self.class_names, self.max_labels, self.identity = manifest.class_names, manifest.max_labels, manifest.identity()
        self._directory, self._split = directory, manifest.split
        self._starts = array("q", np.cumsum([0, *(shard.records for shard in manifest.shards)]).tolist())
        self._start_caches()

    def _start_caches(self) -> None:
        most_images = max(after - start for start, after in itertools.pairwise(self._starts))
        # One that is closed while another thread reads it stays open until that thread lets go of it.
        self._open_shard = lru_cache(maxsize=max_open_shards(most_images))(open_shard)
        self._labels = lru_cache(maxsize=8)(read_labels)  # whoever asks for all labels asks in order

    def __getstate__(self) -> dict:
        """For another process, which opens shards of its own: workers.py."""
        return {name: value for name, value in vars(self).items() if name not in ("_open_shard", "_labels")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._start_caches()

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, index: int) -> Entry:
        file, images, position = self._find(index)
        try:
            with as_os_error(file):
                return unpack(self._open_shard(file, images).read([position])[0])
        except (struct.error, UnicodeDecodeError) as error:
            raise UnreadableImageError(f"no record that `prepare` wrote ({error})") from error
        except RuntimeError as error:  # ArrayRecord's own checksum
            raise UserError(f"{self.locate(index)} has changed on the disk since it was checked: {error}") from error

    def labels(self, index: int) -> tuple[int, ...]:
        file, images, position = self._find(index)
        ends, labels = self._labels(file, images)
        return tuple(labels[ends[position] : ends[position + 1]].tolist())

    def locate(self, index: int) -> str:
        file, _, position = self._find(index)
        return f"{file} record {position}"

    def _find(self, index: int) -> tuple[str, int, int]:
        """Return (the shard's file, how many images it has, the image's position in it)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect_right(self._starts, index) - 1
        start, stop = self._starts[shard : shard + 2]
        return f"{self._directory}/{shard_name(self._split, shard, len(self._starts) - 1)}", stop - start, index - start


def open_shard(file: str, images: int) -> ArrayRecordReader:
    """Open a shard. Raises UserError when it is damaged or does not hold so many images, and OSError as `open` does."""
    # By default a megabyte of the shard's end would be read, for an index of some kilobytes.
    options = "readahead_buffer_size:0,footer_prefetch_bytes:0"
    reader = ArrayRecordReader(file, options=options, file_reader_buffer_size=32768)
    try:
        with as_os_error(file):
            if not reader.ok():
                reader.close()  # which says why
    except RuntimeError as error:
        raise UserError(f"{file} cannot be opened: {error}") from error
    if reader.num_records() != images + 1:
        raise UserError(f"{file} does not hold the {images} images that {MANIFEST} gives it. Copy it again.")
    return reader


def read_labels(file: str, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ([images + 1] where each image's labels begin and end, [all] labels)."""
    with as_os_error(file):
        packed = open_shard(file, images).read([images])[0]
    numbers = np.frombuffer(packed[: len(packed) // 4 * 4], "<i4")
    ends = np.concatenate([[0], np.cumsum(numbers[:images], dtype=np.int64)])
    if len(ends) != images + 1 or np.any(np.diff(ends) < 0) or ends[-1] != len(numbers) - images:
        raise UserError(f"{file} does not hold the labels of its {images} images. Copy it again.")
    return ends, numbers[images:]


def max_open_shards(images: int) -> int:
    """Return how many shards of up to `images` images a split may have open, once the limit of open files is raised for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(INDEXED_IMAGES // sharing_processes // (images + SHARD_OVERHEAD), allowed // 2))
