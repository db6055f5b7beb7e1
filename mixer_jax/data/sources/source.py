"""What every source gives, and what a source is. Which sources there are: registry.py."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from mixer_jax.data.images.decode import decode
from mixer_jax.data.images.partial_jpeg import PartialJpeg


class Record(NamedTuple):
    """One labeled image."""

    image: np.ndarray | bytes | PartialJpeg  # uint8 [h, w, 3], or the bytes of an image file
    labels: tuple[int, ...]  # one class, or a set of them
    partially_decodable: bool = False  # encoded, and known to be a file that PartialJpeg may decode

    def decode(self, max_pixels: int, *, strict: bool) -> "Record":
        """Return the record with its image as pixels, as which some sources give it. Raises UnreadableImageError."""
        return Record(decode(self.image, max_pixels, strict=strict), self.labels) if isinstance(self.image, bytes) else self

    def decode_for_crop(self, max_pixels: int) -> "Record":
        """Decode strictly or, where the file allows it, only once a crop says how many rows of pixels it needs."""
        if self.partially_decodable:
            return Record(PartialJpeg(self.image, max_pixels), self.labels)
        return self.decode(max_pixels, strict=True)


class Source(Protocol):
    """Random access to a split. Records may be asked for by many threads at once, and by processes that it is pickled for."""

    num_classes: int
    class_names: tuple[str, ...]
    max_labels: int  # the most labels a record has

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels alone, where that is cheaper than the record."""

    def locate(self, index: int) -> str:
        """Return where a record comes from, for error messages."""

    def identity(self) -> str:
        """Return a fingerprint of the records and their order, as far as names and manifests tell.

        A run resumes only if it is unchanged.
        """


def source_facts(sources: Mapping[str, Source]) -> dict[str, Any]:
    """Return what every host of a run must have alike, of each source by its name."""
    facts = {}
    for name, source in sources.items():
        classes = hashlib.sha256("\n".join(source.class_names).encode()).hexdigest()[:12]
        facts[name] = f"{len(source)} records ({source.identity()}) of {source.num_classes} classes ({classes})"
    return facts
