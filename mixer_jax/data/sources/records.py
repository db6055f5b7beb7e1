"""The source `records:DIR`: a split that `python -m mixer_jax prepare` made, or a slice of one.

shards.py describes the files of a split, and manifest.py their list and how they are checked.
"""

import re
from pathlib import Path

from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.data.sources.shards import ShardReader
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError


class RecordsSource:
    """The source `records:DIR`, which reads DIR/SPLIT.

    SPLIT may be a slice, such as train[:65000], train[-1000:] or train[99%:]. Because `prepare` shuffles, a slice is a random
    sample. Percentages are rounded to the nearest record.
    """

    SLICE = re.compile(r"([^\[\]]*)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")

    def __init__(self, directory: str, split: str, verify: str):
        parts = self.SLICE.fullmatch(split)
        if not parts:
            raise UserError(f"data.split is {split!r}: it must be NAME or a slice NAME[FROM:TO], in records or percents.")
        name, start, stop = parts.groups()
        self._shards = ShardReader(Path(directory).expanduser() / name, verify)
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
