"""Resizing and the central crop, from uint8 [h, w, 3] to uint8 [h', w', 3]. The random crops of training are in augment.py."""

import cv2
import numpy as np


def resize_large(image: np.ndarray, size: int) -> np.ndarray:
    """Shrink the image so that its longer side has `size` pixels, and keep the aspect. Each new pixel is the mean of its area."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    return cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to [height, width, 3] by bilinear interpolation of the four nearest pixels, as the paper's code resizes crops."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resize_small(image: np.ndarray, size: int) -> np.ndarray:
    """Resize the image so that its shorter side has `size` pixels, and keep the aspect.

    As in the paper's code, a pixel of a smaller image is the mean of its area. A larger image is interpolated bilinearly.
    """
    height, width = image.shape[:2]
    scale = size / min(height, width)
    new_size = (max(size, round(width * scale)), max(size, round(height * scale)))
    return cv2.resize(image, new_size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def central_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return a view of the central square of `size` pixels."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]
