"""Several sources as one. Which of their records comes when: order.py."""

import itertools
from bisect import bisect_right

import numpy as np

from mixer_jax.data.sources.relabeled import Relabeled
from mixer_jax.data.sources.source import Record, Source
from mixer_jax.errors import UserError

BLOCK = 2**16  # positions of the stream in which the parts have exactly their shares


class Mixture:
    """The records of the parts one after the other, their classes joined by name.

    Classes are numbered in the order of the parts: a name of an earlier part has its number. Raises UserError for a name twice in
    one part, and for a weight too small to have a slot among BLOCK, to which the shares are rounded.
    """

    def __init__(self, parts: dict[str, Source], weights: list[float]):
        self.starts = [0, *itertools.accumulate(map(len, parts.values()))]
        self.bounds = [0, *np.rint(np.cumsum(weights) * (BLOCK / sum(weights))).astype(int).tolist()]
        numbers: dict[str, int] = {}  # name -> class
        numbers_of = [[numbers.setdefault(name, len(numbers)) for name in part.class_names] for part in parts.values()]
        for name, classes, (first, after) in zip(parts, numbers_of, itertools.pairwise(self.bounds), strict=True):
            if first == after:
                raise UserError(f"data.parts.{name}.weight is less than one in {BLOCK} of all: raise it, or leave the part out.")
            if len(set(classes)) < len(classes):
                raise UserError(
                    f"data.parts.{name} has two classes of one name: a mixture, which joins classes by name, needs two."
                )
        self.class_names, self.num_classes = tuple(numbers), len(numbers)
        self.parts = [
            Relabeled(part, classes, self.class_names) for part, classes in zip(parts.values(), numbers_of, strict=True)
        ]
        self.max_labels = max(part.max_labels for part in self.parts)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Record:
        part, record = self._find(index)
        return self.parts[part][record]

    def labels(self, index: int) -> tuple[int, ...]:
        part, record = self._find(index)
        return self.parts[part].labels(record)

    def locate(self, index: int) -> str:
        part, record = self._find(index)
        return self.parts[part].locate(record)

    def identity(self) -> str:
        return " + ".join(part.identity() for part in self.parts)

    def peers(self, index: int) -> range:
        """Return the records of the same part."""
        part, _ = self._find(index)
        return range(self.starts[part], self.starts[part + 1])

    def _find(self, index: int) -> tuple[int, int]:
        """Return (number of the part, record of that part)."""
        part = bisect_right(self.starts, index) - 1
        return part, index - self.starts[part]
