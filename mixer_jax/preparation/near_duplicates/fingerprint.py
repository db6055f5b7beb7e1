"""The fingerprint of a picture, by which it is recognized in a copy. What is near enough: index.py.

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
"""

from typing import NamedTuple

import cv2
import imagehash
import numpy as np
from PIL import Image

HASH_SIDE = 16
WORDS = HASH_SIDE**2 // 64
THUMBNAIL_SIDE = 4 * HASH_SIDE  # what imagehash computes frequencies of
CROPS = (  # of a reference: shares of its height at the top and the bottom, of its width at the left and the right
    (0, 0, 0, 0), (0.05, 0.05, 0.05, 0.05), (0.1, 0.1, 0.1, 0.1),
    (0.05, 0, 0.05, 0), (0.05, 0, 0, 0.05), (0, 0.05, 0.05, 0), (0, 0.05, 0, 0.05),
)  # fmt: skip
AREAS_SIDE = 16
MIN_DETAIL = 0.2  # of a thumbnail's pixels must differ from the mean of their four neighbours by a level of grey


class Fingerprint(NamedTuple):
    """What is compared of one picture, or of several with another axis in front."""

    bits: np.ndarray  # uint64 [4]
    areas: np.ndarray  # uint8 [256], brightness


def fingerprint_image(image: np.ndarray) -> Fingerprint | None:
    """Return the fingerprint of uint8 [h, w, 3]; None for an image that is too plain."""
    return _fingerprint_thumbnail(_shrink(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)))


def fingerprint_reference(image: np.ndarray) -> Fingerprint:
    """Return the fingerprints of the parts of uint8 [h, w, 3] and of their mirror images, [up to 14, ...], but for plain ones."""
    grey, (height, width) = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), image.shape[:2]
    fingerprints = []
    for top, bottom, left, right in CROPS:
        part = grey[round(height * top) : height - round(height * bottom), round(width * left) : width - round(width * right)]
        thumbnail = _shrink(part)
        fingerprints += [_fingerprint_thumbnail(thumbnail), _fingerprint_thumbnail(thumbnail[:, ::-1])]
    return stack_fingerprints([one for one in fingerprints if one is not None])


def stack_fingerprints(fingerprints: list[Fingerprint]) -> Fingerprint:
    """Return several fingerprints as one, with another axis in front."""
    bits = np.array([one.bits for one in fingerprints], np.uint64).reshape(-1, WORDS)
    return Fingerprint(bits, np.array([one.areas for one in fingerprints], np.uint8).reshape(-1, AREAS_SIDE**2))


def _fingerprint_thumbnail(thumbnail: np.ndarray) -> Fingerprint | None:
    curvature = cv2.Laplacian(thumbnail, cv2.CV_16S, borderType=cv2.BORDER_REPLICATE)  # four neighbours less four times itself
    areas = cv2.resize(thumbnail, (AREAS_SIDE, AREAS_SIDE), interpolation=cv2.INTER_AREA).ravel()
    if np.mean(np.abs(curvature) >= 4) < MIN_DETAIL or areas.min() == areas.max():
        return None
    signs = imagehash.phash(Image.fromarray(thumbnail), HASH_SIDE).hash
    signs[0, 0] = True  # that of the mean, as it nearly always is: at most 255 bits differ, which uint8 can count
    return Fingerprint(np.packbits(signs).view(np.uint64), areas)


def _shrink(grey: np.ndarray) -> np.ndarray:
    return cv2.resize(grey, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
