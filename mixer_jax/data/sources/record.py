"""What every source gives, and what a source is. Which sources there are: sources.py."""

from typing import NamedTuple, Protocol

import numpy as np


class Record(NamedTuple):
    image: np.ndarray | bytes  # uint8 [h, w, 3], or an encoded JPEG or PNG
    labels: tuple[int, ...]  # one class, or a set of them
    by_rows: bool = False  # encoded, and known to be a file that rows.Rows may decode


class Source(Protocol):
    """Random access to a split. Records may be asked for by many threads at once, and by processes that it is pickled for."""

    num_classes: int
    class_names: tuple[str, ...]
    max_labels: int  # the most labels a record has

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def labels(self, index: int) -> tuple[int, ...]:
        """The labels alone, where that is cheaper than the record."""

    def describe(self, index: int) -> str:
        """Where a record comes from, for error messages."""

    def identity(self) -> str:
        """Another one when records or their order change, as far as names and manifests tell: a run goes on with its own data."""
