"""NumPy images as HTML: PNG data URIs, sheets of captioned pictures, and the colors of signed weights.

samples.py chooses the images that are shown.
"""

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import cv2
import numpy as np

from mixer_jax.data.images.resize import resize

ENLARGED_SIDE = 64  # pixels; smaller images are enlarged, but not beyond this
MAX_SHOWN_SIDE = 96  # pixels; larger images appear on the page with this width
MAX_STORED_SIDE = 128  # pixels; larger images are stored in the file with this longer side, which suits dense screens

# Blue, white and red, the ends and the middle of ColorBrewer's RdBu. Color-blind readers can tell them apart.
NEGATIVE, ZERO, POSITIVE = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], float)


class Picture(NamedTuple):
    """An image with its true and its predicted class."""

    image: np.ndarray  # uint8 [H, W, 3]
    truth: str  # the true class, or several
    mistaken_for: str = ""  # the predicted class if it is wrong


def png_uri(image: np.ndarray) -> str:
    """Return an RGB image, uint8 [H, W, 3], as the URI "data:image/png;base64,..."."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"


def img(image: np.ndarray, text: str, enlarge_to: int = ENLARGED_SIDE) -> str:
    """Return the HTML of an image, uint8 [H, W, 3], with `text` as its tooltip and alternative text.

    A small image is enlarged by a whole factor, to at most `enlarge_to` pixels. A large one is reduced.
    """
    height, width = image.shape[:2]
    if max(height, width) > MAX_STORED_SIDE:
        scale = MAX_STORED_SIDE / max(height, width)
        image = resize(image, round(height * scale), round(width * scale))
    shown = min(MAX_SHOWN_SIDE, width * max(1, enlarge_to // width))
    size = f'width="{shown}" height="{round(shown * height / width)}"'
    sharp = "sharp" if shown >= width else "smooth"
    return f'<img class="{sharp}" src="{png_uri(image)}" {size} alt="{escape(text)}" title="{escape(text)}">'


def sheet(pictures: Sequence[Picture]) -> str:
    """Return the HTML of pictures with captions.

    The caption is the true class. If the prediction is wrong, the caption is the predicted class with a mark, and then the true
    class.
    """
    return f'<div class="sheet">{"".join(map(_captioned, pictures))}</div>'


def pairs_sheet(pairs: Sequence[Sequence[np.ndarray]]) -> str:
    """Return the HTML of arrays of signed weights [h, w]. Each weight is a square, and the arrays of a pair stay together.

    A pair may also consist of one array.
    """
    items = ("".join(img(diverging(unit), "", enlarge_to=48) for unit in pair) for pair in pairs)
    return f'<div class="pairs">{"".join(f"<span>{item}</span>" for item in items)}</div>'


def diverging(values: np.ndarray) -> np.ndarray:
    """Return the colors of signed values: [h, w] -> uint8 [h, w, 3].

    Zero is white. The value of largest magnitude is full red if it is positive and full blue if it is negative.
    """
    largest = np.max(np.abs(values))
    share = values[..., None] / largest if largest > 0 else np.zeros((*values.shape, 1))
    color = ZERO + np.maximum(share, 0) * (POSITIVE - ZERO) + np.maximum(-share, 0) * (NEGATIVE - ZERO)
    return np.round(color).astype(np.uint8)


def _captioned(picture: Picture) -> str:
    truth, wrong = escape(picture.truth), escape(picture.mistaken_for)
    if not wrong:
        return f"<figure>{img(picture.image, picture.truth)}<figcaption>{truth}</figcaption></figure>"
    text = f"predicted {picture.mistaken_for}, is {picture.truth}"
    caption = f"<figcaption><b>\u2717\u202f{wrong}</b><br>is {truth}</figcaption>"
    return f'<figure class="wrong">{img(picture.image, text)}{caption}</figure>'
