"""The interface of a source of labeled images, and the records that it gives. registry.py lists the sources."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mixer_jax.data.images.decode import decode
from mixer_jax.data.images.partial_jpeg import PartialJpeg


class Record(NamedTuple):
    """One labeled image.

    Attributes:
      image: pixels, uint8 [h, w, 3], or the bytes of an image file, or a JPEG file of which only some rows will be decoded.
      labels: the number of the image's class, or of several classes.
      partially_decodable: whether `image` is the bytes of a file that PartialJpeg may decode.
    """

    image: np.ndarray | bytes | PartialJpeg
    labels: tuple[int, ...]
    partially_decodable: bool = False

    def decode(self, max_pixels: int, *, strict: bool) -> "Record":
        """Return the record with its image as pixels. Some sources give pixels already.

        Raises UnreadableImageError if the image cannot be decoded or has more than `max_pixels` pixels.
        """
        return Record(decode(self.image, max_pixels, strict=strict), self.labels) if isinstance(self.image, bytes) else self

    def decode_for_crop(self, max_pixels: int) -> "Record":
        """Return the record with its image as pixels or, if the file allows it, as a PartialJpeg.

        A PartialJpeg is decoded later, when the crop is known, and then only as far as the crop needs.
        """
        if self.partially_decodable:
            return Record(PartialJpeg(self.image, max_pixels), self.labels)
        return self.decode(max_pixels, strict=True)


class Source(Protocol):
    """The records of a split, in random access.

    Many threads may read records at the same time. A source can be pickled, so that other processes can read its records too.

    Attributes:
      num_classes: the number of classes.
      class_names: the names of the classes, in the order of their numbers.
      max_labels: the largest number of labels that a record has.
    """

    num_classes: int
    class_names: tuple[str, ...]
    max_labels: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of a record. This does not read the image if the source can avoid it."""

    def locate(self, index: int) -> str:
        """Return where a record comes from, for error messages."""

    def key(self, index: int) -> str:
        """Return what the data call a record, wherever they lie. This reads nothing."""

    def identity(self) -> str:
        """Return a fingerprint of the records and their order, made from names and manifests.

        A run resumes only if it is unchanged.
        """


@runtime_checkable
class Prefetching(Protocol):
    """A source that can start to read several records at the same time, because each of them takes long."""

    def prefetch(self, indices: Sequence[int]) -> None:
        """Start to read the records that the calling thread will read next, in this order."""


def prefetch(source: Source, indices: Sequence[int]) -> None:
    """Start to read records that this thread will read next, in this order, if the source can read several at the same time."""
    if isinstance(source, Prefetching):
        source.prefetch(indices)


def source_facts(sources: Mapping[str, Source]) -> dict[str, Any]:
    """Return {name of the source: text on its records and classes}. The texts must be equal on all hosts of a run."""
    facts = {}
    for name, source in sources.items():
        classes = hashlib.sha256("\n".join(source.class_names).encode()).hexdigest()[:12]
        facts[name] = f"{len(source)} records ({source.identity()}) of {source.num_classes} classes ({classes})"
    return facts
