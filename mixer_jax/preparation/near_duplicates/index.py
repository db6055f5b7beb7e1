"""Whether an image is a copy of one of many others, of which it finds the nearest. Whose images: references.py.

Exact: the bytes of both files are the same (SHA-256). Near: at most MAX_DISTANCE of the 256 bits of a perceptual hash differ, and
areas of the picture, 16 x 16, have nearly the same order of brightness (Spearman's correlation of at least MIN_CORRELATION). Hash
and areas: fingerprint.py.

Each image is compared with each hash: no index that is exact at such a distance would save much. Against ImageNet's validation
set (50 000 images, 700 000 hashes) that is some 2 ms of CPU an image, an estimated 7 core-hours for ImageNet-21k's 14 million.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from mixer_jax.preparation.near_duplicates.fingerprint import Fingerprint, fingerprint_image, stack_fingerprints

MAX_DISTANCE = 60  # bits of 256
MIN_CORRELATION = 0.8  # of the brightness of areas, by rank


class Match(NamedTuple):
    """That an image is a copy of a reference."""

    kind: str  # exact or near
    distance: int  # bits; 0 if exact
    number: int  # of the reference


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return twice the mean rank of each among all; equal values have equal ranks."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")


class Index:
    """References by the SHA-256 of their files and by their fingerprints. A reference's number is its index in both lists."""

    def __init__(self, digests: list[bytes], fingerprints: list[Fingerprint]):
        self._number_of = {digest: number for number, digest in reversed(list(enumerate(digests)))}  # the first of equal ones
        self._numbers = np.repeat(np.arange(len(fingerprints)), [len(one.bits) for one in fingerprints])
        none = stack_fingerprints([])
        self._words = np.concatenate([none.bits, *(one.bits for one in fingerprints)]).T.copy()  # [4, fingerprints]
        self._areas = np.concatenate([none.areas, *(one.areas for one in fingerprints)])

    def find(self, data: bytes, image: np.ndarray) -> Match | None:
        """Return the reference that an image (its file's bytes; uint8 [h, w, 3]) is a copy of: the nearest, then the first."""
        number = self._number_of.get(hashlib.sha256(data).digest()) if self._number_of else None
        if number is not None:
            return Match("exact", 0, number)
        wanted = fingerprint_image(image) if len(self._numbers) else None
        return None if wanted is None else self.nearest(wanted)

    def nearest(self, wanted: Fingerprint) -> Match | None:
        """Return the nearest reference that is near enough, of equally near ones the first."""
        distances = self.distances(wanted)
        near = np.flatnonzero(distances <= MAX_DISTANCE)
        for nearest in near[np.argsort(distances[near], kind="stable")]:
            if np.corrcoef(_ranks(wanted.areas), _ranks(self._areas[nearest]))[0, 1] >= MIN_CORRELATION:
                return Match("near", int(distances[nearest]), int(self._numbers[nearest]))
        return None

    def distances(self, wanted: Fingerprint) -> np.ndarray:
        """Return in how many bits each fingerprint of a reference differs: uint8 [fingerprints]."""
        return sum(np.bitwise_count(words ^ word) for words, word in zip(self._words, wanted.bits, strict=True))
