"""How much two thumbnails agree once one is laid over the other: the decision whether an image is a copy.

A copy may be cut, shifted or scaled. So one thumbnail is moved over the other, first by whole pixels, and where that looks
promising by an affine map that maximizes the correlation (OpenCV's findTransformECC). What is compared is their detail, with
equal contrast everywhere: otherwise one dark thing before the sky, or a horizon, would decide alone, and ships and airplanes of
CIFAR-10 that only resemble each other would be taken for copies. For the same reason a picture with little detail must agree
where it is: one ellipse can be laid over any other.

Copies and different pictures are far apart by this figure; `python -m benchmarks.near_duplicates` measures it.
"""

from typing import NamedTuple

import cv2
import numpy as np

from mixer_jax.preparation.near_duplicates.fingerprint import SIDE, band_pass, detail, equalize

MIN_PROMISE = 0.7  # correlation after a shift by whole pixels: copies have 0.74 or more in 99 of 100 cases, most others less
MARGIN, MAX_SHIFT = 6, 3  # pixels: what is left out at each side for the shift, and the shift
MAX_SHEAR = 0.08  # a copy is cut and scaled, and turned by no more than 3 degrees
MAX_SCALE, MAX_ASPECT = (
    1.4,
    1.25,
)  # either way; cropping by 12 % at each side scales by 1.32, at one side changes the aspect by 1.14
FREE_DETAIL, MAX_MOVE = 0.6, 2.0  # with less detail no corner of the thumbnail may move by more pixels
MIN_OVERLAP = 0.55  # of the thumbnail
ITERATIONS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 1e-3)


class Part(NamedTuple):
    """A part of a picture, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


def correlate(thumbnail: np.ndarray, part: Part, other: np.ndarray, other_part: Part, mirrored: bool) -> float:
    """Return the correlation, at most 1, of the detail of two thumbnails if `part` of the one shows `other_part` of the other.

    -1 where no alignment was found. The parts are where the search begins and need not be exact.

    Args:
        thumbnail: uint8 [SIDE, SIDE].
        part: A part of the thumbnail or, if `mirrored`, of its mirror image.
        other: uint8 [SIDE, SIDE].
        other_part: A part of the other.
        mirrored: Whether the mirror image of the first is compared.
    """
    free = min(detail(thumbnail), detail(other)) >= FREE_DETAIL
    thumbnail = np.ascontiguousarray(thumbnail[:, ::-1]) if mirrored else thumbnail
    start = _map(part, other_part)
    promise, shift = _best_shift(_warp(thumbnail, start), other)
    if promise < MIN_PROMISE:
        return -1.0
    start[:, 2] -= start[:, :2] @ shift
    try:
        _, found = cv2.findTransformECC(other, thumbnail, start.copy(), cv2.MOTION_AFFINE, ITERATIONS, None, 3)
    except cv2.error:  # it did not converge
        found = start
    return max([-1.0, *(_correlate_mapped(thumbnail, other, affine) for affine in (start, found) if _is_crop(affine, free))])


def _is_crop(affine: np.ndarray, free: bool) -> bool:
    """Return whether a map may be that between a picture and a copy of it."""
    (x_scale, x_shear, _), (y_shear, y_scale, _) = affine
    if not free:
        corners = np.array([[x, y, 1] for x in (0, SIDE - 1) for y in (0, SIDE - 1)], np.float32)
        return bool(np.abs(corners @ affine.T - corners[:, :2]).max() <= MAX_MOVE)
    smaller, larger = sorted((x_scale, y_scale))
    within = smaller * MAX_SCALE >= 1 and larger <= MAX_SCALE and larger <= MAX_ASPECT * smaller
    return bool(within and max(abs(x_shear), abs(y_shear)) <= MAX_SHEAR)


def _correlate_mapped(thumbnail: np.ndarray, other: np.ndarray, affine: np.ndarray) -> float:
    """Return the correlation where the thumbnails overlap."""
    seen = _warp(np.full((SIDE, SIDE), 255, np.uint8), affine, cv2.BORDER_CONSTANT) == 255
    if seen.mean() < MIN_OVERLAP:
        return -1.0
    first, second = (equalize(band_pass(one))[seen] for one in (_warp(thumbnail, affine), other))
    first, second = first - first.mean(), second - second.mean()
    norm = np.sqrt(np.sum(first * first) * np.sum(second * second))
    return float(np.sum(first * second) / norm) if norm > 0 else -1.0


def _best_shift(thumbnail: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the greatest correlation of the inner parts of both, and the shift (x, y) in pixels where it is."""
    inner, outer = slice(MARGIN, SIDE - MARGIN), slice(MARGIN - MAX_SHIFT, SIDE - MARGIN + MAX_SHIFT)
    first, second = band_pass(thumbnail)[inner, inner], band_pass(other)[outer, outer]
    _, greatest, _, shift = cv2.minMaxLoc(cv2.matchTemplate(second, first, cv2.TM_CCOEFF_NORMED))
    return greatest, np.array(shift, np.float32) - MAX_SHIFT


def _map(part: Part, other_part: Part) -> np.ndarray:
    """Return the affine map, float32 [2, 3], from the pixels of the other thumbnail to those of the first."""
    rows = []
    for axis in (0, 1):
        low, high, other_low, other_high = part[axis], part[axis + 2], other_part[axis], other_part[axis + 2]
        scale = (high - low) / (other_high - other_low)
        shift = (low - other_low * scale) * SIDE + (scale - 1) / 2  # the center of pixel i is at i + 1/2
        rows.append([scale, 0, shift] if axis == 0 else [0, scale, shift])
    return np.array(rows, np.float32)


def _warp(thumbnail: np.ndarray, affine: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(thumbnail, affine, (SIDE, SIDE), flags=flags, borderMode=border)
