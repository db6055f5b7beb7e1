"""The fingerprint of an image: a thumbnail in gray, from which everything else about copies is computed.

A thumbnail with little detail (a blank, a gradient, areas of color, a small logo on white, a bird in the sky) looks like many
others. Such an image has no fingerprint and is compared by its bytes alone.
"""

import cv2
import numpy as np

from mixer_jax.preparation.spec import PreparationSpec

SIDE = 32  # pixels of a thumbnail
FINE, COARSE = 0.8, 3.0  # pixels: standard deviations of the two Gaussians whose difference is the band-pass
NOISE = 2.0  # levels of gray: contrast below this is not raised


def fingerprint_image(image: np.ndarray, min_detail: float = PreparationSpec.near_duplicate_detail) -> np.ndarray | None:
    """Return the thumbnail, uint8 [SIDE, SIDE], of uint8 [h, w, 3]; None for an image whose `detail` is below `min_detail`."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    averaging = min(gray.shape) >= SIDE
    thumbnail = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA if averaging else cv2.INTER_LINEAR)
    return thumbnail if detail(thumbnail) >= min_detail else None


def detail(thumbnail: np.ndarray) -> float:
    """Return how much of a thumbnail has detail above noise: 0 for a blank, about 0.75 for most photographs, at most about 1."""
    return float(np.mean(equalize(band_pass(thumbnail)) ** 2))


def band_pass(thumbnail: np.ndarray) -> np.ndarray:
    """Return the detail: coarse shading is alike in many pictures, and the finest is lost when an image is encoded again."""
    values = thumbnail.astype(np.float32)
    return cv2.GaussianBlur(values, (0, 0), FINE) - cv2.GaussianBlur(values, (0, 0), COARSE)


def equalize(band: np.ndarray) -> np.ndarray:
    """Return a band-passed thumbnail divided by its contrast nearby."""
    return band / np.sqrt(cv2.GaussianBlur(band * band, (0, 0), COARSE) + NOISE**2)
