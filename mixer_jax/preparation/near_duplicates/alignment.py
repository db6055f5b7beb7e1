"""The correlation of two thumbnails once one is laid over the other. It decides whether an image is a copy of another.

A copy may be cropped, shifted or scaled. One thumbnail is therefore moved over the other, first by whole pixels. If they then
correlate by at least MIN_SHIFT_CORRELATION, an affine map is found that maximizes the correlation (OpenCV's findTransformECC).

The details of the thumbnails are compared, divided by their local contrast. Without this division, a single dark object in front
of the sky, or a horizon, would dominate the correlation, and ships and airplanes of CIFAR-10 that merely resemble each other
would be taken for copies. For the same reason, a picture with little detail may hardly be moved: any ellipse can be laid over any
other.

The correlations of copies and those of different photographs are far apart. `python -m benchmarks.near_duplicates` measures how
many copies are found and how many different pictures are taken for copies. Drawings of a few strokes are an exception: different
drawings can be laid over each other (within.py).
"""

from typing import NamedTuple

import cv2
import numpy as np

from mixer_jax.preparation.near_duplicates.fingerprint import SIDE, band_pass, detail, equalize

# The correlation after a shift by whole pixels. That of 99 of 100 copies is at least 0.74, and that of most other pairs is
# smaller.
MIN_SHIFT_CORRELATION = 0.7
MAX_SHIFT = 3  # pixels
MARGIN = 6  # pixels that are left out at each side of the one thumbnail, which leaves room for the shift
MAX_SHEAR = 0.08  # A copy is assumed to be rotated by at most 3 degrees, which has a shear of 0.05.
# The largest scale and change of the aspect ratio, in both directions. Cropping by 12 % at each side scales by 1.32. Cropping by
# 12 % at one side changes the aspect ratio by 1.14.
MAX_SCALE, MAX_ASPECT = 1.4, 1.25
MIN_MOVABLE_DETAIL = 0.6  # With less detail, no corner of the thumbnail may move by more than MAX_MOVE.
MAX_MOVE = 2.0  # pixels
MIN_OVERLAP = 0.55  # as a fraction of the thumbnail
ITERATIONS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 1e-3)


class Part(NamedTuple):
    """A rectangle of a picture. Its edges are fractions of the picture's width and height."""

    left: float
    top: float
    right: float
    bottom: float


def correlate(thumbnail: np.ndarray, part: Part, other: np.ndarray, other_part: Part, mirrored: bool) -> float:
    """Return the correlation of the details of two aligned thumbnails, from -1 to 1, or -1 if they cannot be aligned.

    The search for the alignment begins with the assumption that `part` of the first thumbnail shows the same as `other_part` of
    the other. The parts need not be exact.

    Args:
        thumbnail: uint8 [SIDE, SIDE].
        part: A part of the thumbnail or, if `mirrored`, of its mirror image.
        other: uint8 [SIDE, SIDE].
        other_part: A part of the other thumbnail.
        mirrored: Whether the mirror image of the first thumbnail is compared.
    """
    movable = min(detail(thumbnail), detail(other)) >= MIN_MOVABLE_DETAIL
    thumbnail = np.ascontiguousarray(thumbnail[:, ::-1]) if mirrored else thumbnail
    start = _map(part, other_part)
    shift_correlation, shift = _best_shift(_warp(thumbnail, start), other)
    if shift_correlation < MIN_SHIFT_CORRELATION:
        return -1.0
    start[:, 2] -= start[:, :2] @ shift
    try:
        _, refined = cv2.findTransformECC(other, thumbnail, start.copy(), cv2.MOTION_AFFINE, ITERATIONS, None, 3)
    except cv2.error:  # It did not converge.
        refined = start
    maps = [affine for affine in (start, refined) if _is_allowed(affine, movable)]
    return max([-1.0, *(_correlate_mapped(thumbnail, other, affine) for affine in maps)])


def _is_allowed(affine: np.ndarray, movable: bool) -> bool:
    """Return whether an affine map, float32 [2, 3], can be that between a picture and a copy of it.

    If the picture is not `movable`, because it has little detail, only small movements are allowed.
    """
    (x_scale, x_shear, _), (y_shear, y_scale, _) = affine
    if not movable:
        corners = np.array([[x, y, 1] for x in (0, SIDE - 1) for y in (0, SIDE - 1)], np.float32)
        return bool(np.abs(corners @ affine.T - corners[:, :2]).max() <= MAX_MOVE)
    smaller, larger = sorted((x_scale, y_scale))
    is_scale_allowed = smaller * MAX_SCALE >= 1 and larger <= MAX_SCALE and larger <= MAX_ASPECT * smaller
    return bool(is_scale_allowed and max(abs(x_shear), abs(y_shear)) <= MAX_SHEAR)


def _correlate_mapped(thumbnail: np.ndarray, other: np.ndarray, affine: np.ndarray) -> float:
    """Return the correlation in the area where the thumbnails overlap, or -1 if this area is too small."""
    overlap = _warp(np.full((SIDE, SIDE), 255, np.uint8), affine, cv2.BORDER_CONSTANT) == 255
    if overlap.mean() < MIN_OVERLAP:
        return -1.0
    first, second = (equalize(band_pass(image))[overlap] for image in (_warp(thumbnail, affine), other))
    first, second = first - first.mean(), second - second.mean()
    norm = np.sqrt(np.sum(first * first) * np.sum(second * second))
    return float(np.sum(first * second) / norm) if norm > 0 else -1.0


def _best_shift(thumbnail: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the greatest correlation of the inner parts of both thumbnails, and the shift (x, y) in pixels that gives it."""
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
        shift = (low - other_low * scale) * SIDE + (scale - 1) / 2  # The center of pixel i is at i + 1/2.
        rows.append([scale, 0, shift] if axis == 0 else [0, scale, shift])
    return np.array(rows, np.float32)


def _warp(thumbnail: np.ndarray, affine: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """Return the thumbnail whose pixel p is the pixel `affine`(p) of the given one."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(thumbnail, affine, (SIDE, SIDE), flags=flags, borderMode=border)
