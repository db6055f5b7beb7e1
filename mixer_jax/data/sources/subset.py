"""A source that gives some records of another source, such as a few of each class."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mixer_jax.data.sources.source import Record, Source, prefetch
from mixer_jax.errors import UserError


class Subset:
    """The records of another source that have the given numbers, in that order."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices
        self.num_classes, self.class_names, self.max_labels = source.num_classes, source.class_names, source.max_labels

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self._indices[index])]

    def prefetch(self, indices: Sequence[int]) -> None:
        """Start to read records of the other source, if it can."""
        prefetch(self._source, self._indices[list(indices)].tolist())

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of a record."""
        return self._source.labels(int(self._indices[index]))

    def locate(self, index: int) -> str:
        """Return where a record comes from."""
        return self._source.locate(int(self._indices[index]))

    def key(self, index: int) -> str:
        """Return the key of a record in the other source."""
        return self._source.key(int(self._indices[index]))

    def identity(self) -> str:
        """Return the fingerprint of the other source."""
        return self._source.identity()


def per_class_subset(source: Source, examples_per_class: int, seed: int) -> Subset:
    """Draw `examples_per_class` records of every class, without replacement.

    The result is a pure function of the source and the seed. All labels of the source are read once. Raises UserError if a class
    has too few records.
    """
    records_of = defaultdict(list)
    for index in range(len(source)):
        for label in source.labels(index):
            records_of[label].append(index)
    chosen = []
    for label in range(source.num_classes):
        records = records_of[label]
        if len(records) < examples_per_class:
            raise UserError(
                f"data.examples_per_class is {examples_per_class}, but class {source.class_names[label]!r} has only "
                f"{len(records)} records."
            )
        rng = np.random.default_rng([seed, label])
        chosen.extend(rng.permutation(records)[:examples_per_class])
    return Subset(source, np.array(chosen))
