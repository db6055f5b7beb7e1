"""Resizing and the central crop: uint8 [h, w, 3] in and out. The random crops of training: augment.py."""

import cv2
import numpy as np


def resize_large(image: np.ndarray, size: int) -> np.ndarray:
    """Make the longer side `size` pixels, smaller than it was, and keep the aspect; each pixel is the mean of its area."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    return cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to [height, width, 3], bilinear between the four nearest pixels, as the paper's code resizes its crops."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resize_small(image: np.ndarray, size: int) -> np.ndarray:
    """Make the shorter side `size` pixels and keep the aspect; pixels of a smaller image are means, as in the paper's code."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    new_size = (max(size, round(width * scale)), max(size, round(height * scale)))
    return cv2.resize(image, new_size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def central_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return the central square of `size` pixels, a view."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]
