"""Pictures that have a fingerprint."""

import cv2
import numpy as np


def picture(seed: int) -> np.ndarray:
    """Smooth, with as much detail as a photograph."""
    return cv2.resize(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8), (320, 240), interpolation=2)
