"""NumPy images as pictures of a page: their size there, their encoding, and the colors of signed weights."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg

from mixer_jax.data.images.resize import resize
from mixer_jax.pages.parts import Picture

ENLARGED_SIDE = 64  # pixels; smaller images are enlarged, but not beyond this
MAX_SHOWN_SIDE = 96  # pixels; larger images appear on the page with this width
MAX_STORED_SIDE = 128  # pixels; larger images are stored in the file with this longer side, which suits dense screens
JPEG_QUALITY = 88  # of images that are larger than ENLARGED_SIDE. A photograph of 128 pixels then has 6 kB, and 40 kB as PNG.

# Blue, white and red, the ends and the middle of ColorBrewer's RdBu. Color-blind readers can tell them apart.
NEGATIVE, ZERO, POSITIVE = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], float)


def image_uri(image: np.ndarray) -> str:
    """Return an RGB image, uint8 [H, W, 3], as a URI "data:image/...". Small images are stored exactly, as PNG."""
    if max(image.shape) <= ENLARGED_SIDE:
        kind, data = "png", cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
    else:
        kind, data = "jpeg", simplejpeg.encode_jpeg(np.ascontiguousarray(image), JPEG_QUALITY, colorspace="RGB")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def picture(
    image: np.ndarray, text: str = "", caption: Sequence[str] = (), *, is_wrong: bool = False, enlarge_to: int = ENLARGED_SIDE
) -> Picture:
    """Return an image, uint8 [H, W, 3], as a picture.

    A small image is enlarged by a whole factor, to at most `enlarge_to` pixels. A large one is reduced.
    """
    height, width = image.shape[:2]
    if max(height, width) > MAX_STORED_SIDE:
        scale = MAX_STORED_SIDE / max(height, width)
        image = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    shown = min(MAX_SHOWN_SIDE, width * max(1, enlarge_to // width))
    return Picture(image_uri(image), shown, max(1, round(shown * height / width)), shown >= width, text, caption, is_wrong)


def labeled(image: np.ndarray, truth: str, mistaken_for: str = "", note: str = "") -> Picture:
    """Return an image with its classes below it.

    Args:
      image: uint8 [H, W, 3].
      truth: the true class, or several.
      mistaken_for: the predicted class if it is wrong. Then it stands first, with a mark.
      note: a last line, such as the probability of the predicted class.
    """
    last = (note,) if note else ()
    if not mistaken_for:
        return picture(image, truth, (truth, *last))
    return picture(image, f"predicted {mistaken_for}, is {truth}", (mistaken_for, f"is {truth}", *last), is_wrong=True)


def weights_picture(values: np.ndarray, text: str = "", enlarge_to: int = 48) -> Picture:
    """Return signed weights [h, w] as a picture in which each weight is a square."""
    return picture(diverging(values), text, enlarge_to=enlarge_to)


def filter_picture(values: np.ndarray, text: str = "") -> Picture:
    """Return a filter over RGB pixels, [P, P, 3], as a picture in which each pixel is a square."""
    return picture(filter_colors(values), text, enlarge_to=32)


def filter_colors(values: np.ndarray) -> np.ndarray:
    """Return a filter over RGB pixels as colors: [P, P, 3] -> uint8 [P, P, 3].

    A weight of zero is mid-gray in its channel, 127.5. The weight of largest magnitude is 255 if it is positive and 0 if it is
    negative. All channels have the same scale.
    """
    largest = np.max(np.abs(values))
    share = values / largest if largest > 0 else np.zeros_like(values)
    return np.round(127.5 + 127.5 * share).astype(np.uint8)


def diverging(values: np.ndarray) -> np.ndarray:
    """Return the colors of signed values: [h, w] -> uint8 [h, w, 3].

    Zero is white. The value of largest magnitude is full red if it is positive and full blue if it is negative.
    """
    largest = np.max(np.abs(values))
    share = values[..., None] / largest if largest > 0 else np.zeros((*values.shape, 1))
    color = ZERO + np.maximum(share, 0) * (POSITIVE - ZERO) + np.maximum(-share, 0) * (NEGATIVE - ZERO)
    return np.round(color).astype(np.uint8)
