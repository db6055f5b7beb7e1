"""Our own shards: one split as ArrayRecord files. What a split is and that it is whole: manifest.py. Making them: preparation/.

    DIR/SPLIT/SPLIT-00003-of-00626.array_record

Each image is a record: `<HH` (bytes of its name, number of its labels), the labels as int32, the name in UTF-8, the image file's
bytes. One more record ends the shard, int32: the number of labels of each image, then all labels in a row. So labels are read
without the images, and a split costs memory by its shards, not by its images.
"""

import os
import resource
import struct
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mixer_jax.config import UserError
from mixer_jax.data.manifest import MANIFEST, Manifest, Shard

MAX_OPEN_FILES = 2**20
_HEAD = struct.Struct("<HH")


def pack(name: str, labels: tuple[int, ...], image: bytes) -> bytes:
    encoded = name.encode()
    return _HEAD.pack(len(encoded), len(labels)) + np.asarray(labels, "<i4").tobytes() + encoded + image


def unpack(record: bytes) -> tuple[str, tuple[int, ...], bytes]:
    """(name, labels, image)"""
    name_bytes, num_labels = _HEAD.unpack_from(record)
    labels = struct.unpack_from(f"<{num_labels}i", record, _HEAD.size)
    start = _HEAD.size + 4 * num_labels
    return record[start : start + name_bytes].decode(), labels, record[start + name_bytes :]


def write_shard(file: Path, records: list[tuple[str, tuple[int, ...], bytes]]) -> None:
    """Writes (name, labels, image) in order, down to the disk. Equal records give equal bytes."""
    counts = [len(labels) for _, labels, _ in records]
    labels = [label for _, labels, _ in records for label in labels]
    try:
        writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")  # images are compressed already
        for record in records:
            writer.write(pack(*record))
        writer.write(np.asarray(counts + labels, "<i4").tobytes())
        writer.close()
    except RuntimeError as error:
        raise UserError(f"{file} cannot be written: {error}. Make room and run the command again, it goes on.") from error
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class ShardReader:
    """Random access to the images of a split, by many threads at once (an ArrayRecordReader allows it: tests/data)."""

    def __init__(self, directory: Path, verify: str):
        self.manifest = Manifest(directory)
        self.manifest.check(verify)
        self._starts = np.cumsum([0] + [shard.records for shard in self.manifest.shards]).tolist()
        _allow_open_files(len(self.manifest.shards))
        self._readers = [self._open(shard) for shard in self.manifest.shards]
        self._labels_of = lru_cache(maxsize=8)(self._read_labels)  # whoever asks for all labels asks in order

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, index: int) -> tuple[str, tuple[int, ...], bytes]:
        """(name, labels, image)"""
        shard, place = self._find(index)
        try:
            return unpack(self._readers[shard].read([place])[0])
        except RuntimeError as error:  # ArrayRecord's own checksum
            raise UserError(f"{self.describe(index)} has changed on the disk since it was checked: {error}") from error

    def labels(self, index: int) -> tuple[int, ...]:
        shard, place = self._find(index)
        ends, labels = self._labels_of(shard)
        return tuple(labels[ends[place] : ends[place + 1]].tolist())

    def describe(self, index: int) -> str:
        shard, place = self._find(index)
        return f"{self.manifest.directory / self.manifest.shards[shard].name} record {place}"

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _open(self, shard: Shard) -> ArrayRecordReader:
        file = self.manifest.directory / shard.name
        reader = open_shard(file)
        if reader.num_records() != shard.records + 1:
            raise UserError(f"{file} does not hold the {shard.records} images that {MANIFEST} gives it. Copy it again.")
        return reader

    def _read_labels(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """([n + 1] where each image's labels begin and end, [all] labels)"""
        counts, labels = read_labels(self._readers[shard])
        return np.concatenate([[0], np.cumsum(counts)]), labels


def open_shard(file: Path) -> ArrayRecordReader:
    return ArrayRecordReader(str(file), options="readahead_buffer_size:0", file_reader_buffer_size=32768)


def read_labels(reader: ArrayRecordReader) -> tuple[np.ndarray, np.ndarray]:
    """([n] the number of labels of each image, [all] labels)"""
    images = reader.num_records() - 1
    numbers = np.frombuffer(reader.read([images])[0], "<i4")
    return numbers[:images], numbers[images:]


def _allow_open_files(count: int) -> None:
    """Every shard stays open: raises the process's limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if count > most - 256 and soft != resource.RLIM_INFINITY:
        raise UserError(f"{count} shards, and only {most} files may be open: raise `ulimit -n`, or use more --records-per-shard.")
