"""One image on the host: decode, resize, crop. uint8 RGB in, uint8 RGB out; [-1, 1] comes later, on the device."""

import cv2
import numpy as np
import simplejpeg

from mixer_jax.config import UserError

cv2.setNumThreads(0)  # the loader's threads already use every core

JPEG, PNG = b"\xff\xd8", b"\x89PNG"


def decode(data: bytes) -> np.ndarray:
    """A JPEG or PNG file's bytes -> uint8 [h, w, 3]; grey, palette and CMYK come out as RGB, EXIF rotation is ignored.

    Raises UserError for another format, or for data that end too soon.
    """
    if data[:2] == JPEG:
        try:
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        except ValueError:  # CMYK, or a mere warning, such as the stray bytes in a few of ImageNet's files: OpenCV decides
            return _opencv_decode(data, "JPEG")
    if data[:4] == PNG:
        return _opencv_decode(data, "PNG")
    raise UserError(f"neither JPEG nor PNG (its first bytes are {data[:4]!r})")


def _opencv_decode(data: bytes, kind: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError(f"a damaged {kind}")
    return image


def dimensions(data: bytes) -> tuple[int, int]:
    """(height, width) that a JPEG or PNG file claims, without decoding it. Raises UserError as `decode` does."""
    if data[:2] == JPEG:
        return _jpeg_dimensions(data)
    if data[:4] == PNG and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    raise UserError(f"neither JPEG nor PNG (its first bytes are {data[:4]!r})")


def _jpeg_dimensions(data: bytes) -> tuple[int, int]:
    """From the frame header, of any kind and subsampling; simplejpeg's own refuses rare ones that decode well."""
    place = 2
    while place + 9 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF:  # stray bytes, which decoders skip too
            place = data.find(b"\xff", place) % (len(data) + 1)  # not found: the end
        elif marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # padding, or a marker without a length
            place += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[place + 5 : place + 7], "big"), int.from_bytes(data[place + 7 : place + 9], "big")
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise UserError("a damaged JPEG: it has no frame header")


def resize_large(image: np.ndarray, size: int) -> np.ndarray:
    """Longer side to `size` pixels, smaller than it was, the aspect kept; each pixel is the mean of the area."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    return cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h, w, 3] -> [height, width, 3], bilinear between the four nearest pixels, as the paper's code resizes its crops."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resize_small(image: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to `size` pixels, the aspect kept; a smaller image is the mean of the area, as in the paper's code."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    new_size = (max(size, round(width * scale)), max(size, round(height * scale)))
    return cv2.resize(image, new_size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def central_crop(image: np.ndarray, size: int) -> np.ndarray:
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]
