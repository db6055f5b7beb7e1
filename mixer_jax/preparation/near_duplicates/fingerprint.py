"""The fingerprint of an image: a gray thumbnail. The search for near copies looks at nothing else of an image.

A thumbnail with little detail looks like many others. Examples are a blank image, a gradient, areas of color, a small logo on
white and a bird in the sky. Such an image has no fingerprint and is compared by its bytes alone.
"""

import cv2
import numpy as np

from mixer_jax.preparation.spec import PreparationSpec

SIDE = 32  # pixels of a thumbnail
FINE, COARSE = 0.8, 3.0  # pixels: standard deviations of the two Gaussians whose difference is the band-pass
NOISE = 2.0  # gray levels; contrast below this counts as noise and is not amplified


def fingerprint_image(image: np.ndarray, min_detail: float = PreparationSpec.near_duplicate_detail) -> np.ndarray | None:
    """Return the thumbnail, uint8 [SIDE, SIDE], of an image, uint8 [h, w, 3], or None if its `detail` is below `min_detail`."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    averaging = min(gray.shape) >= SIDE
    thumbnail = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA if averaging else cv2.INTER_LINEAR)
    return thumbnail if detail(thumbnail) >= min_detail else None


def detail(thumbnail: np.ndarray) -> float:
    """Return how much of a thumbnail has detail above the noise: the mean square of its equalized band-pass.

    It is 0 for a blank image, about 0.75 for most photographs, and at most about 1.
    """
    return float(np.mean(equalize(band_pass(thumbnail)) ** 2))


def band_pass(thumbnail: np.ndarray) -> np.ndarray:
    """Return the details of a thumbnail: the difference of two Gaussian blurs, float32 [SIDE, SIDE].

    Coarser shading is left out because it is similar in many pictures. Finer details are left out because they are lost when an
    image is encoded again.
    """
    values = thumbnail.astype(np.float32)
    return cv2.GaussianBlur(values, (0, 0), FINE) - cv2.GaussianBlur(values, (0, 0), COARSE)


def equalize(band: np.ndarray) -> np.ndarray:
    """Return a band-passed thumbnail divided by its local contrast: band / sqrt(blur(band^2) + NOISE^2)."""
    return band / np.sqrt(cv2.GaussianBlur(band * band, (0, 0), COARSE) + NOISE**2)
