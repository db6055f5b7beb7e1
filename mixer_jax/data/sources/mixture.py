"""A source that joins several sources. data/stream/order.py decides which of their records comes when."""

import itertools
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from mixer_jax.data.sources.relabeled import Relabeled
from mixer_jax.data.sources.source import Record, Source, prefetch
from mixer_jax.errors import UserError

BLOCK = 2**16  # In each block of this many positions of the stream, every part has exactly its rounded share.


class Mixture:
    """The records of several sources, one source after the other, with their classes joined by name.

    Classes are numbered in the order of the parts. A class whose name an earlier part has too gets the number that it has there.

    Attributes:
      parts: the sources, with their classes numbered as in the mixture.
      starts: the number of the first record of each part, and the number of all records.
      bounds: part i has positions bounds[i] to bounds[i + 1] - 1 of each block of BLOCK positions.
    """

    def __init__(self, parts: dict[str, Source], weights: list[float]):
        """Join the parts, whose shares are proportional to the weights.

        Raises UserError if two classes of one part have the same name, or if a share is rounded to no position in a block.
        """
        self.starts = [0, *itertools.accumulate(map(len, parts.values()))]
        self.bounds = [0, *np.rint(np.cumsum(weights) * (BLOCK / sum(weights))).astype(int).tolist()]
        numbers: dict[str, int] = {}  # {name of a class: its number}
        numbers_of = [[numbers.setdefault(name, len(numbers)) for name in part.class_names] for part in parts.values()]
        for name, classes, (first, after) in zip(parts, numbers_of, itertools.pairwise(self.bounds), strict=True):
            if first == after:
                raise UserError(f"data.parts.{name}.weight is less than one in {BLOCK} of all: raise it, or leave the part out.")
            if len(set(classes)) < len(classes):
                raise UserError(
                    f"data.parts.{name} has two classes of one name: a mixture joins classes by name, so rename one of them."
                )
        self.class_names, self.num_classes = tuple(numbers), len(numbers)
        self.parts = [
            Relabeled(part, classes, self.class_names) for part, classes in zip(parts.values(), numbers_of, strict=True)
        ]
        self._names = tuple(parts)
        self.max_labels = max(part.max_labels for part in self.parts)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Record:
        part, record = self._find(index)
        return self.parts[part][record]

    def prefetch(self, indices: Sequence[int]) -> None:
        """Start to read records of those parts that can."""
        found = [self._find(index) for index in indices]
        for number, part in enumerate(self.parts):
            prefetch(part, [record for owner, record in found if owner == number])

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of a record."""
        part, record = self._find(index)
        return self.parts[part].labels(record)

    def locate(self, index: int) -> str:
        """Return where a record comes from."""
        part, record = self._find(index)
        return self.parts[part].locate(record)

    def key(self, index: int) -> str:
        """Return the name of the part, and the key of a record in it."""
        part, record = self._find(index)
        return f"{self._names[part]}/{self.parts[part].key(record)}"

    def identity(self) -> str:
        """Return the fingerprints of all parts."""
        return " + ".join(part.identity() for part in self.parts)

    def peers(self, index: int) -> range:
        """Return the numbers of all records in the part that a record belongs to."""
        part, _ = self._find(index)
        return range(self.starts[part], self.starts[part + 1])

    def _find(self, index: int) -> tuple[int, int]:
        """Return (number of the part, number of the record in that part)."""
        part = bisect_right(self.starts, index) - 1
        return part, index - self.starts[part]
