"""NumPy images as HTML: PNG data URIs, sheets of captioned pictures, and the colours of signed weights.

Not here: which images are shown (samples.py).
"""

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import cv2
import numpy as np

from mixer_jax.data.images.resize import resize

SMALL = 64  # pixels: up to here, small images are enlarged
SHOWN = 96  # pixels: the largest on the page
STORED = 128  # pixels: the largest in the file, for dense screens

# Blue, white, red: the ends and middle of ColorBrewer's RdBu, which stay apart for colour-blind eyes.
NEGATIVE, ZERO, POSITIVE = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], float)


class Picture(NamedTuple):
    image: np.ndarray  # uint8 [H, W, 3]
    truth: str  # the true class, or several
    mistaken_for: str = ""  # the predicted class, where that is wrong


def png_uri(image: np.ndarray) -> str:
    """uint8 RGB [H, W, 3] -> data:image/png;base64,..."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"


def img(image: np.ndarray, text: str, enlarge_to: int = SMALL) -> str:
    """One image, uint8 [H, W, 3]: a small one in whole multiples up to `enlarge_to` pixels, a large one smaller."""
    height, width = image.shape[:2]
    if max(height, width) > STORED:
        scale = STORED / max(height, width)
        image = resize(image, round(height * scale), round(width * scale))
    shown = min(SHOWN, width * max(1, enlarge_to // width))
    size = f'width="{shown}" height="{round(shown * height / width)}"'
    sharp = "sharp" if shown >= width else "smooth"
    return f'<img class="{sharp}" src="{png_uri(image)}" {size} alt="{escape(text)}" title="{escape(text)}">'


def sheet(pictures: Sequence[Picture]) -> str:
    """Pictures in rows with the class underneath; a wrong prediction is marked and followed by the true class."""
    return f'<div class="sheet">{"".join(map(_captioned, pictures))}</div>'


def pairs_sheet(pairs: Sequence[Sequence[np.ndarray]]) -> str:
    """Pairs (or singles) of signed weights [h, w], each weight a square, each pair kept together."""
    items = ("".join(img(diverging(unit), "", enlarge_to=48) for unit in pair) for pair in pairs)
    return f'<div class="pairs">{"".join(f"<span>{item}</span>" for item in items)}</div>'


def diverging(values: np.ndarray) -> np.ndarray:
    """Signed values [h, w] -> uint8 [h, w, 3]: 0 white, the largest magnitude full red (above 0) or blue (below)."""
    largest = np.max(np.abs(values))
    share = values[..., None] / largest if largest > 0 else np.zeros((*values.shape, 1))
    colour = ZERO + np.maximum(share, 0) * (POSITIVE - ZERO) + np.maximum(-share, 0) * (NEGATIVE - ZERO)
    return np.round(colour).astype(np.uint8)


def _captioned(picture: Picture) -> str:
    truth, wrong = escape(picture.truth), escape(picture.mistaken_for)
    if not wrong:
        return f"<figure>{img(picture.image, picture.truth)}<figcaption>{truth}</figcaption></figure>"
    text = f"predicted {picture.mistaken_for}, is {picture.truth}"
    caption = f"<figcaption><b>\u2717\u202f{wrong}</b><br>is {truth}</figcaption>"
    return f'<figure class="wrong">{img(picture.image, text)}{caption}</figure>'
