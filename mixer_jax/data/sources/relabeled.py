"""A source that gives the records of another source with other class numbers."""

from collections.abc import Sequence

from mixer_jax.classes import Names
from mixer_jax.data.sources.source import Record, Source, prefetch


class Relabeled:
    """The records of another source with other class numbers: class i of that source is class numbers[i] of `class_names`."""

    def __init__(self, source: Source, numbers: Sequence[int], class_names: Names):
        self._source, self._numbers = source, tuple(numbers)
        self.class_names, self.num_classes = class_names, len(class_names)
        self.max_labels = source.max_labels

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        return record._replace(labels=self._renumber(record.labels))

    def prefetch(self, indices: Sequence[int]) -> None:
        """Start to read records of the other source, if it can."""
        prefetch(self._source, indices)

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of a record, renumbered."""
        return self._renumber(self._source.labels(index))

    def locate(self, index: int) -> str:
        """Return where a record comes from."""
        return self._source.locate(index)

    def key(self, index: int) -> str:
        """Return the key of a record in the other source."""
        return self._source.key(index)

    def identity(self) -> str:
        """Return the fingerprint of the other source."""
        return self._source.identity()

    def _renumber(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        """Return the new numbers. A label that is not a class of the other source becomes -1, which the loader refuses."""
        return tuple(self._numbers[label] if 0 <= label < len(self._numbers) else -1 for label in labels)
