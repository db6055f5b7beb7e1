"""A source of images that a program gives: paths of files, bytes of files, PIL images, and arrays of pixels.

Each becomes the pixels that a file with these pixels would become (images/decode.py): gray is repeated for the three colors,
opacity is dropped, and a rotation in the EXIF data is ignored.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixer_jax.data.images.decode import UnreadableImageError, check_size
from mixer_jax.data.sources.image_files import read_image
from mixer_jax.data.sources.source import Record

PATHS, BYTES = (str, os.PathLike), (bytes, bytearray, memoryview)
PIL_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # PIL turns these into RGB as decode.py does.
OneImage = str | os.PathLike | bytes | Image.Image | np.ndarray
ACCEPTED = "an image is a path, the bytes of a file, a PIL image, or a uint8 array [height, width, 3]"


class GivenImages:
    """A source of images that a program gives. Its records have no labels. It cannot be pickled.

    `first` is the number of the first image, for messages.
    """

    max_labels, num_classes, class_names = 1, 0, ()

    def __init__(self, images: Sequence[Any], first: int = 0):
        self._images, self._first = images, first
        # An image that is given twice would be decoded by two threads, which PIL does not allow.
        self._pil_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Record:
        image = self._images[index]
        if isinstance(image, PATHS):
            if os.path.isdir(image):
                raise UnreadableImageError("a folder; give a list of its files, such as sorted(Path(FOLDER).rglob('*.jpg'))")
            return Record(read_image(Path(image)), ())
        if isinstance(image, BYTES):
            return Record(bytes(image), ())
        if isinstance(image, Image.Image):
            with self._pil_lock:
                return Record(_pixels_of_pil(image), ())
        if hasattr(image, "__array__"):
            return Record(_pixels_of_array(np.asarray(image)), ())
        raise UnreadableImageError(f"of the type {type(image).__name__}; {ACCEPTED}")

    def labels(self, index: int) -> tuple[int, ...]:
        """Return no labels."""
        return ()

    def locate(self, index: int) -> str:
        """Return the path of an image, or its number if it has none."""
        image = self._images[index]
        return os.fspath(image) if isinstance(image, PATHS) else f"Image {self._first + index}"

    def key(self, index: int) -> str:
        """Return what `locate` returns."""
        return self.locate(index)

    def identity(self) -> str:
        """Return the number of images. Predictions are never resumed, so this need not identify the records."""
        return f"{len(self._images)} given images"


def is_one_image(images: Any) -> bool:
    """Return whether a program gives one image, and not several: an array [N, height, width, 3] or another iterable."""
    return isinstance(images, (*PATHS, *BYTES, Image.Image)) or (hasattr(images, "__array__") and np.ndim(images) in (0, 2, 3))


def _pixels_of_pil(image: Image.Image) -> np.ndarray:
    """Return the pixels of a PIL image, uint8 [h, w, 3]. Raises UnreadableImageError if they have no certain meaning in RGB."""
    check_size(image.height, image.width)
    if image.mode not in PIL_MODES:
        raise UnreadableImageError(f"a PIL image of the mode {image.mode}; convert it to RGB first")
    try:
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # PIL warns of the step from there to RGB.
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # PIL decodes a file when its pixels are first needed.
        raise UnreadableImageError(f"a PIL image that cannot be decoded ({error})") from error


def _pixels_of_array(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels of an array, uint8 [h, w, 3]. Raises UnreadableImageError if it is no image."""
    if pixels.dtype != np.uint8:
        hint = " (for values from 0 to 1: np.round(255 * x).astype(np.uint8))" if pixels.dtype.kind == "f" else ""
        raise UnreadableImageError(f"an array of {pixels.dtype}; pixels are uint8, from 0 to 255{hint}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise UnreadableImageError(f"an array of the shape {list(pixels.shape)}; {ACCEPTED}, or gray, or with opacity")
    check_size(*pixels.shape[:2])
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]
    return np.ascontiguousarray(pixels)
