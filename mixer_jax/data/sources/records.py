"""The source `records:DIR`: a split that `python -m mixer_jax prepare` made, or a slice of one. DIR may be gs://BUCKET/PATH.

shards.py describes the files of a split, and manifest.py their list and how they are checked. local_copy.py copies a split from a
bucket, and range_reader.py reads its records there.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from mixer_jax.bucket import is_in_bucket
from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.data.sources.bucket_split import splits_in_bucket
from mixer_jax.data.sources.local_copy import NO_COPY, copy_split
from mixer_jax.data.sources.manifest import prepared_splits
from mixer_jax.data.sources.range_reader import RangeReader
from mixer_jax.data.sources.shards import ShardReader
from mixer_jax.data.sources.source import Record, prefetch
from mixer_jax.errors import UserError


class RecordsSource:
    """The source `records:DIR`, which reads DIR/SPLIT.

    SPLIT may be a slice, such as train[:65000], train[-1000:] or train[99%:]. Because `prepare` shuffles, a slice is a random
    sample. Percentages are rounded to the nearest record.
    """

    SLICE = re.compile(r"([^\[\]]*)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")

    def __init__(self, directory: str, split: str, verify: str, local_copy: str):
        """Open a split. One in a bucket is first copied (see `copy_split` about `local_copy`), unless `local_copy` is NO_COPY."""
        parts = self.SLICE.fullmatch(split)
        if not parts:
            raise UserError(f"data.split is {split!r}: it must be NAME or a slice NAME[FROM:TO], in records or percents.")
        name, start, stop = parts.groups()
        url = f"{directory}/{name}" if is_in_bucket(directory) else ""
        if url and local_copy == NO_COPY:
            self._shards = RangeReader(url)
        else:
            folder = copy_split(url, local_copy) if url else Path(directory).expanduser() / name
            self._shards = ShardReader(folder, verify)
        self.class_names, self.max_labels = self._shards.class_names, self._shards.max_labels
        self.num_classes = len(self.class_names)
        self._range = range(len(self._shards))[self._bound(start) : self._bound(stop)]

    def _bound(self, text: str | None) -> int | None:
        """Return a bound of a slice as a number of records: None for None, "-3" as -3, "99%" of all records."""
        if text is None or not text.endswith("%"):
            return text if text is None else int(text)
        return round(int(text[:-1]) * len(self._shards) / 100)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> Record:
        entry = self._shards.read(self._range[index])
        return Record(entry.image, entry.labels, entry.partially_decodable)

    def prefetch(self, indices: Sequence[int]) -> None:
        """Start to read records from a bucket. On a disk this does nothing."""
        prefetch(self._shards, [self._range[index] for index in indices])

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of a record, without reading its image."""
        return self._shards.labels(self._range[index])

    def locate(self, index: int) -> str:
        """Return the shard and the position of a record in it and, if the record can be read, the name of its image."""
        where = self._shards.locate(self._range[index])
        try:
            return f"{where} ({self._shards.read(self._range[index]).name})"
        except UnreadableImageError:
            return where

    def key(self, index: int) -> str:
        """Return the name of the shard, and the position of a record in it."""
        return self._shards.key(self._range[index])

    def identity(self) -> str:
        """Return a digest of all bytes of the split's shards."""
        return self._shards.identity


def split_names(directory: str) -> tuple[str, ...]:
    """Return the names of the prepared splits in a folder or in gs://BUCKET/PATH, sorted."""
    return splits_in_bucket(directory) if is_in_bucket(directory) else prepared_splits(Path(directory).expanduser())
