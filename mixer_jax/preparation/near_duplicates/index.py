"""Whether an image is a copy of one of many others: the hash, and the index that finds the nearest. Whose images: references.py.

Exact: the bytes of both files are the same (SHA-256). Near: at most MAX_DISTANCE of the 256 bits of a perceptual hash differ, and
areas of the picture, 16 x 16, have nearly the same order of brightness (Spearman's correlation of at least MIN_CORRELATION).

The hash is imagehash's pHash of 16 x 16: the signs, about their median, of the lowest frequencies of the picture in grey, 64 x 64
pixels. Tried beside it on photographs: block means of the same length (OpenCV's img_hash) come much nearer to each other for
different pictures, pHash of 64 bits does not bear a crop of 2 %, and PDQ does as well but has no wheels for Linux. The thumbnail
is OpenCV's, as imagehash's own takes longer and does no better. The order of brightness is there because pictures with a frame,
or with a single thing in a corner, have like hashes.

Such a hash bears a crop of 2 % at each side. So a reference has fourteen: of itself and of parts, as CROPS says, and of their
mirror images. That finds crops of up to 5 % at any side. Not found are crops of 20 %, or of 10 % at two sides alone, pictures
turned by 10 degrees, collages, and a reference that is itself a crop of the image. `python -m benchmarks.near_duplicates`
measures this, also on photographs of yours.

A thumbnail with next to nothing on it (MIN_DETAIL: a blank, a gradient, areas of colour, an even pattern) has a hash of noise, or
that of all like it. Such an image, and such a reference, has none, and is compared by its bytes alone.

Each image is compared with each hash: no index that is exact at such a distance would save much. Against ImageNet's validation
set (50 000 images, 700 000 hashes) that is some 2 ms of CPU an image, an estimated 7 core-hours for ImageNet-21k's 14 million.
"""

import hashlib
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
from PIL import Image

HASH_SIDE = 16
WORDS = HASH_SIDE**2 // 64
THUMBNAIL_SIDE = 4 * HASH_SIDE  # what imagehash computes frequencies of
MAX_DISTANCE = 60  # bits of 256
MIN_CORRELATION = 0.8  # of the brightness of areas, by rank
CROPS = (  # of a reference: shares of its height at the top and the bottom, of its width at the left and the right
    (0, 0, 0, 0), (0.05, 0.05, 0.05, 0.05), (0.1, 0.1, 0.1, 0.1),
    (0.05, 0, 0.05, 0), (0.05, 0, 0, 0.05), (0, 0.05, 0.05, 0), (0, 0.05, 0, 0.05),
)  # fmt: skip
AREAS_SIDE = 16
MIN_DETAIL = 0.2  # of a thumbnail's pixels must differ from the mean of their four neighbours by a level of grey


class Fingerprint(NamedTuple):
    """Of one picture, or of several with another axis in front."""

    bits: np.ndarray  # uint64 [4]
    areas: np.ndarray  # uint8 [256], brightness


class Match(NamedTuple):
    kind: str  # exact or near
    distance: int  # bits; 0 if exact
    number: int  # of the reference


def fingerprint(image: np.ndarray) -> Fingerprint | None:
    """Of uint8 [h, w, 3]; None for an image that is too plain."""
    return _fingerprint(_thumbnail(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)))


def reference_fingerprint(image: np.ndarray) -> Fingerprint:
    """Of the parts of uint8 [h, w, 3] and their mirror images, [up to 14, ...]: those that are not too plain."""
    grey, (height, width) = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), image.shape[:2]
    fingerprints = []
    for top, bottom, left, right in CROPS:
        rows = slice(round(height * top), height - round(height * bottom))
        thumbnail = _thumbnail(grey[rows, round(width * left) : width - round(width * right)])
        fingerprints += [_fingerprint(thumbnail), _fingerprint(thumbnail[:, ::-1])]
    return _stacked([each for each in fingerprints if each is not None])


def _stacked(fingerprints: list[Fingerprint]) -> Fingerprint:
    bits = np.array([each.bits for each in fingerprints], np.uint64).reshape(-1, WORDS)
    return Fingerprint(bits, np.array([each.areas for each in fingerprints], np.uint8).reshape(-1, AREAS_SIDE**2))


def _fingerprint(thumbnail: np.ndarray) -> Fingerprint | None:
    curvature = cv2.Laplacian(thumbnail, cv2.CV_16S, borderType=cv2.BORDER_REPLICATE)  # four neighbours less four times itself
    areas = cv2.resize(thumbnail, (AREAS_SIDE, AREAS_SIDE), interpolation=cv2.INTER_AREA).ravel()
    if np.mean(np.abs(curvature) >= 4) < MIN_DETAIL or areas.min() == areas.max():
        return None
    signs = imagehash.phash(Image.fromarray(thumbnail), HASH_SIDE).hash
    signs[0, 0] = True  # that of the mean, as it nearly always is: at most 255 bits differ, which uint8 can count
    return Fingerprint(np.packbits(signs).view(np.uint64), areas)


def _thumbnail(grey: np.ndarray) -> np.ndarray:
    return cv2.resize(grey, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Twice the mean rank of each among all; equal values have equal ranks."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")


class Index:
    """References by the SHA-256 of their files and by their fingerprints; each has its place in both lists as its number."""

    def __init__(self, digests: list[bytes], fingerprints: list[Fingerprint]):
        self._number_of = {digest: number for number, digest in reversed(list(enumerate(digests)))}  # the first of equal ones
        self._numbers = np.repeat(np.arange(len(fingerprints)), [len(each.bits) for each in fingerprints])
        none = _stacked([])
        self._words = np.concatenate([none.bits, *(each.bits for each in fingerprints)]).T.copy()  # [4, fingerprints]
        self._areas = np.concatenate([none.areas, *(each.areas for each in fingerprints)])

    def find(self, data: bytes, image: np.ndarray) -> Match | None:
        """The reference that an image, its file's bytes and uint8 [h, w, 3], is a copy of; of several the nearest, then first."""
        number = self._number_of.get(hashlib.sha256(data).digest()) if self._number_of else None
        if number is not None:
            return Match("exact", 0, number)
        wanted = fingerprint(image) if len(self._numbers) else None
        return None if wanted is None else self.nearest(wanted)

    def nearest(self, wanted: Fingerprint) -> Match | None:
        distances = self.distances(wanted)
        near = np.flatnonzero(distances <= MAX_DISTANCE)
        for place in near[np.argsort(distances[near], kind="stable")]:
            if np.corrcoef(_ranks(wanted.areas), _ranks(self._areas[place]))[0, 1] >= MIN_CORRELATION:
                return Match("near", int(distances[place]), int(self._numbers[place]))
        return None

    def distances(self, wanted: Fingerprint) -> np.ndarray:
        """The bits in which each fingerprint of a reference differs, uint8 [fingerprints]"""
        return sum(np.bitwise_count(words ^ word) for words, word in zip(self._words, wanted.bits, strict=True))
