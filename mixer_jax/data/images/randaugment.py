"""RandAugment (Cubuk et al., arXiv 1909.13719): a few operations, drawn uniformly, all at one magnitude.

The paper (section 3, Table 4) names layers and magnitude m, but no implementation. The operations, and what m means to each, are
those of its authors' code, big_vision's pp/archive/autoaugment.py (from TPU EfficientNet): m / 10 of the value in `OPERATIONS`,
also beyond m = 10; what is drawn is always applied; a fair coin decides signs; what comes from outside the image is grey 128; a
pixel that moves is not mixed with its neighbours. uint8 [h, w, 3] stays so, and no operation writes into its input.

Two differences from that code. Its operations are called equivalents of Pillow's; where it rounds otherwise, Pillow is followed:
luminance, its mean (Contrast) and the smoothed image (Sharpness) are rounded to the nearest level. And its lengths (translation,
Cutout) are pixels whatever the image's size, 100 and 40 at m = 10: at 32 pixels they leave nothing of an image. The paper trains
at 224 pixels. Here a length is its share of 224 pixels of the image's side, or with lengths="pixels" as in that code.

Solarize inverts levels from 256 m / 10 up. The authors' code compares with that number as uint8, which wraps around (big_vision
issue 110): at m = 15 it acts as 128, at 10 and 20 as 0, so that all is inverted. The released weights and the 76.3 % that the
authors state come from that code, so this is the default here, solarize="wrapped". With "clipped" no pixel reaches the number
from m = 10 on, and Solarize changes nothing, as in timm.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

GREY = 128
LEVELS = np.arange(256)
LUMINANCE = np.float32([[19595 / 65536, 38470 / 65536, 7471 / 65536, 0.5]])  # ITU-R 601 and a half: Pillow's, exact in float32


LENGTHS_SIDE = 224  # pixels: the paper's images, of which the lengths below are shares


class Strength(NamedTuple):
    """How strong the operations are, and what the options make of that."""

    magnitude: float  # m of Table 4
    scale: float  # of lengths in pixels
    wraps: bool  # whether Solarize's threshold wraps around in uint8


def randaugment(
    image: np.ndarray, rng: np.random.Generator, layers: int, magnitude: float, *, solarize: str, lengths: str
) -> np.ndarray:
    """Apply `layers` operations one after the other, each any of the sixteen with equal chance: uint8 [h, w, 3] -> the same.

    `solarize` and `lengths` are config.augment's randaugment_solarize and randaugment_lengths. Training images are square; of
    another, lengths are shares of the shorter side.
    """
    scale = min(image.shape[:2]) / LENGTHS_SIDE if lengths == "shares" else 1.0
    strength = Strength(magnitude, scale, solarize == "wrapped")
    for drawn in rng.integers(len(OPERATIONS), size=layers):
        operation, arguments = ROWS[drawn]
        image = operation(image, *arguments(strength, rng))
    return image


# Grey levels, each by itself: look-up tables.


def invert(image: np.ndarray) -> np.ndarray:
    return cv2.bitwise_not(image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the `bits` highest bits; but at least one (below m = 2.5) and at most eight (above 20), as TensorFlow's shifts do."""
    return cv2.LUT(image, _posterized(bits))


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts levels from the threshold up."""
    return cv2.LUT(image, _solarized(threshold))


def solarize_add(image: np.ndarray, addition: int) -> np.ndarray:
    """Brightens levels below 128."""
    return cv2.LUT(image, _brightened_below_half(addition))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from black for a factor above 1, towards it below."""
    return cv2.LUT(image, _away_from(0, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from, or towards, the image's mean luminance."""
    mean = int(cv2.sumElems(_luminance(image))[0] / (image.size / 3) + 0.5)
    return cv2.LUT(image, _away_from(mean, factor))


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel to 0 ... 255; a constant one stays."""
    rows = image.reshape(len(image), -1)  # NumPy is fast where the rest is long
    lowest, highest = rows.min(0).reshape(-1, 3).min(0), rows.max(0).reshape(-1, 3).max(0)
    return cv2.LUT(image, np.concatenate([_stretched(*ends) for ends in zip(lowest.tolist(), highest.tolist(), strict=True)], -1))


def equalize(image: np.ndarray) -> np.ndarray:
    """Makes each channel's levels about equally frequent.

    A level becomes the number of pixels below it, in steps of a 255th of those below the highest; without a step it stays.
    """
    histograms = [cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    pixels = np.stack(histograms, -1).astype(np.int64)
    below = np.cumsum(pixels, 0) - pixels
    steps = np.where(pixels, below, 0).max(0) // 255
    return cv2.LUT(image, _table(np.where(steps, (below + steps // 2) // np.maximum(steps, 1), LEVELS[:, None])))


def _table(levels: np.ndarray) -> np.ndarray:
    """What each level becomes, clipped and truncated: [256] for all channels, or [256, 3] -> uint8 [1, 256, 1 or 3]"""
    return np.clip(levels, 0, 255).astype(np.uint8).reshape(1, 256, -1)


@lru_cache(maxsize=4096)
def _stretched(lowest: int, highest: int) -> np.ndarray:
    scale = 255 / (highest - lowest) if highest > lowest else 0
    return _table(LEVELS * scale - lowest * scale if scale else LEVELS)


@lru_cache
def _posterized(bits: int) -> np.ndarray:
    return _table(LEVELS & (0xFF00 >> min(max(bits, 1), 8)))


@lru_cache
def _solarized(threshold: int) -> np.ndarray:
    return _table(np.where(threshold <= LEVELS, 255 - LEVELS, LEVELS))


@lru_cache
def _brightened_below_half(addition: int) -> np.ndarray:
    return _table(np.where(LEVELS < 128, LEVELS + addition, LEVELS))


@lru_cache(maxsize=512)
def _away_from(mean: int, factor: float) -> np.ndarray:
    return _table(mean + factor * (LEVELS - mean))


# The image and a plainer one, mixed or pushed apart.


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from, or towards, the grey image."""
    return _blend(cv2.cvtColor(_luminance(image), cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from, or towards, a smoothed image; the outermost pixels stay."""
    smooth = cv2.filter2D(image, -1, SMOOTHING)
    for edge in np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]:
        smooth[edge] = image[edge]
    return _blend(smooth, image, factor)


SMOOTHING = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def _blend(plain: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """plain + factor (image - plain), clipped and truncated: addWeighted rounds, so almost a half is taken off before."""
    return cv2.addWeighted(image, factor, plain, 1 - factor, -0.49)


def _luminance(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] -> [h, w], rounded. OpenCV's own has other weights by a 65536th, which a factor would bring to light."""
    return cv2.transform(image.astype(np.float32), LUMINANCE).astype(np.uint8)


# Pixels in other places.


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """About the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2
    return _move(image, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def shear_x(image: np.ndarray, level: float) -> np.ndarray:
    """Each row by `level` pixels more than the one above; the first stays."""
    return _move(image, (1, level, 0), (0, 1, 0))


def shear_y(image: np.ndarray, level: float) -> np.ndarray:
    return _move(image, (1, 0, 0), (level, 1, 0))


def translate_x(image: np.ndarray, pixels: float) -> np.ndarray:
    return _move(image, (1, 0, pixels), (0, 1, 0))


def translate_y(image: np.ndarray, pixels: float) -> np.ndarray:
    return _move(image, (1, 0, 0), (0, 1, pixels))


def cutout(image: np.ndarray, half: int, y: float, x: float) -> np.ndarray:
    """Greys a square of side 2 x `half` whose centre lies at shares y, x of the image's sides, and may stick out."""
    row, column = int(y * image.shape[0]), int(x * image.shape[1])
    image = image.copy()
    image[max(0, row - half) : row + half, max(0, column - half) : column + half] = GREY
    return image


def _move(image: np.ndarray, to_x: tuple[float, ...], to_y: tuple[float, ...]) -> np.ndarray:
    """Pixel (x, y) of the result is the image's pixel nearest to (to_x . (x, y, 1), to_y . (x, y, 1)), halves rounded up.

    Not cv2.warpAffine: it rounds in fixed point, and takes the neighbour of the nearest pixel once in some hundred.
    """
    sources = _source_pixels(*image.shape[:2], to_x, to_y)
    return cv2.remap(image, sources, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=(GREY,) * 3)


@lru_cache(maxsize=32)  # a run has ten: five operations at one magnitude and size, with either sign
def _source_pixels(height: int, width: int, to_x: tuple[float, ...], to_y: tuple[float, ...]) -> np.ndarray:
    """Where each pixel comes from, int16 [height, width, 2]. The millionth keeps exact halves, of which a shear is full, up."""
    x, y = np.arange(width), np.arange(height)[:, None]
    return cv2.merge(
        [np.floor(by_x * x + (by_y * y + shift + 0.5 + 1e-6)).astype(np.int16) for by_x, by_y, shift in (to_x, to_y)]
    )


# What an operation is called with: (strength, generator) -> arguments after the image.

Arguments = Callable[[Strength, np.random.Generator], tuple]


def _none(strength: Strength, rng: np.random.Generator) -> tuple:
    return ()


def _whole(at_10: float) -> Arguments:
    return lambda strength, rng: (int(strength.magnitude / 10 * at_10),)


def _threshold(at_10: float) -> Arguments:
    def arguments(strength: Strength, rng: np.random.Generator) -> tuple:
        threshold = int(strength.magnitude / 10 * at_10)
        return (threshold % 256 if strength.wraps else threshold,)

    return arguments


def _signed(at_10: float) -> Arguments:
    return lambda strength, rng: (strength.magnitude / 10 * at_10 * _sign(rng),)


def _signed_length(at_10: float) -> Arguments:
    return lambda strength, rng: (strength.magnitude / 10 * at_10 * strength.scale * _sign(rng),)


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _factor(strength: Strength, rng: np.random.Generator) -> tuple:
    return (strength.magnitude / 10 * 1.8 + 0.1,)


def _whole_length_and_center(at_10: float) -> Arguments:
    return lambda strength, rng: (int(strength.magnitude / 10 * at_10 * strength.scale), *rng.random(2))


# distort_image_with_randaugment of big_vision's pp/archive/autoaugment.py: operations in its order, with the values at m = 10.
OPERATIONS: dict[str, tuple[Callable[..., np.ndarray], Arguments]] = {
    "AutoContrast": (autocontrast, _none),
    "Equalize": (equalize, _none),
    "Invert": (invert, _none),
    "Rotate": (rotate, _signed(30)),  # degrees
    "Posterize": (posterize, _whole(4)),  # bits kept: fewer at a lower magnitude
    "Solarize": (solarize, _threshold(256)),  # level
    "Color": (color, _factor),  # 1.9
    "Contrast": (contrast, _factor),
    "Brightness": (brightness, _factor),
    "Sharpness": (sharpness, _factor),
    "ShearX": (shear_x, _signed(0.3)),  # pixels a pixel
    "ShearY": (shear_y, _signed(0.3)),
    "TranslateX": (translate_x, _signed_length(100)),  # pixels at 224
    "TranslateY": (translate_y, _signed_length(100)),
    "Cutout": (cutout, _whole_length_and_center(40)),  # pixels at 224, half a side
    "SolarizeAdd": (solarize_add, _whole(110)),  # levels
}
ROWS = tuple(OPERATIONS.values())
