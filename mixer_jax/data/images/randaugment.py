"""RandAugment (Cubuk et al., arXiv 1909.13719): a few operations, drawn uniformly, all at one magnitude.

The MLP-Mixer paper (section 3, Table 4) states the number of layers and the magnitude m, but no implementation. The operations
and the meaning of m are those of its authors' code, big_vision's pp/archive/autoaugment.py (from TPU EfficientNet):

- An operation's strength is m / 10 times the value in `OPERATIONS`, also if m is larger than 10.
- Every drawn operation is applied. A sign is positive or negative with equal probability.
- Pixels from outside the image are gray, level 128. Moved pixels are not interpolated.

Images are uint8 [h, w, 3] before and after. No operation writes into its input.

There are two differences from that code. First, its comments call the operations equivalents of Pillow's, but some of them round
differently. Here they round as Pillow does: the luminance, its mean (Contrast) and the smoothed image (Sharpness) are rounded to
the nearest level. Second, its lengths (translation and Cutout) are numbers of pixels at any image size, 100 and 40 at m = 10, and
at 32 pixels such lengths leave nothing of an image. The paper trains at 224 pixels. Here a length scales with the image: it is
the same share of the image's side as that number is of 224 pixels. With lengths="pixels" it is the number of pixels, as in that
code.

Solarize inverts the levels from 256 m / 10 upward. The authors' code converts this threshold to uint8, where it wraps around
(big_vision issue 110): at m = 15 the threshold acts as 128, and at m = 10 and m = 20 as 0, so that every level is inverted. The
released weights and the 76.3 % that the authors state come from that code, so solarize="wrapped" is the default here. With
solarize="clipped", no level reaches the threshold if m is 10 or more, and Solarize changes nothing, as in timm.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

GRAY = 128
LEVELS = np.arange(256)
# Pillow's weights of ITU-R 601, which are exact in float32. The added half makes truncation round to the nearest level.
LUMINANCE = np.float32([[19595 / 65536, 38470 / 65536, 7471 / 65536, 0.5]])
LENGTHS_SIDE = 224  # pixels; the side of the paper's images, for which the lengths in OPERATIONS are stated


class Strength(NamedTuple):
    """The options that decide how strong an operation is."""

    magnitude: float  # m of Table 4
    scale: float  # factor for lengths in pixels
    wraps: bool  # whether Solarize's threshold wraps around in uint8


def randaugment(
    image: np.ndarray, rng: np.random.Generator, layers: int, magnitude: float, *, solarize: str, lengths: str
) -> np.ndarray:
    """Apply `layers` operations in sequence, each drawn uniformly from the sixteen: uint8 [h, w, 3] -> uint8 [h, w, 3].

    Args:
      image: the pixels. If they are not square, lengths scale with the shorter side.
      rng: draws the operations, their signs and positions.
      layers: the number of operations.
      magnitude: m of Table 4.
      solarize: config.augment.randaugment_solarize, "wrapped" or "clipped".
      lengths: config.augment.randaugment_lengths, "shares" or "pixels".
    """
    scale = min(image.shape[:2]) / LENGTHS_SIDE if lengths == "shares" else 1.0
    strength = Strength(magnitude, scale, solarize == "wrapped")
    for index in rng.integers(len(OPERATIONS), size=layers):
        operation, arguments = ROWS[index]
        image = operation(image, *arguments(strength, rng))
    return image


# Operations that change each level by itself, through a look-up table.


def invert(image: np.ndarray) -> np.ndarray:
    """Replace each level by 255 minus it."""
    return cv2.bitwise_not(image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the `bits` highest bits of each level: at least one (m below 2.5) and at most eight (m above 20).

    The limits are those of the bit shifts in TensorFlow.
    """
    return cv2.LUT(image, _posterized(bits))


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Invert the levels from `threshold` upward."""
    return cv2.LUT(image, _solarized(threshold))


def solarize_add(image: np.ndarray, addition: int) -> np.ndarray:
    """Brighten the levels below 128 by `addition`."""
    return cv2.LUT(image, _brightened_below_half(addition))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply all levels by `factor`."""
    return cv2.LUT(image, _scaled_around(0, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the difference of each level from the image's mean luminance by `factor`."""
    mean = int(cv2.sumElems(_luminance(image))[0] / (image.size / 3) + 0.5)
    return cv2.LUT(image, _scaled_around(mean, factor))


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretch each channel linearly to 0 ... 255, except a channel that is constant."""
    rows = image.reshape(len(image), -1)  # NumPy reduces the first axis fast if the other one is long.
    lowest, highest = rows.min(0).reshape(-1, 3).min(0), rows.max(0).reshape(-1, 3).max(0)
    return cv2.LUT(image, np.concatenate([_stretched(*ends) for ends in zip(lowest.tolist(), highest.tolist(), strict=True)], -1))


def equalize(image: np.ndarray) -> np.ndarray:
    """Make the levels of each channel about equally frequent, as Pillow does.

    For each channel, with below[i] the number of pixels with a level less than i, and the step below[highest level] // 255, level
    i becomes (below[i] + step // 2) // step. A channel whose step is 0 stays as it is.
    """
    histograms = [cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    pixels = np.stack(histograms, -1).astype(np.int64)
    below = np.cumsum(pixels, 0) - pixels
    step = np.where(pixels, below, 0).max(0) // 255
    return cv2.LUT(image, _lookup_table(np.where(step, (below + step // 2) // np.maximum(step, 1), LEVELS[:, None])))


def _lookup_table(levels: np.ndarray) -> np.ndarray:
    """Return the new levels, clipped and truncated, in OpenCV's shape: [256] or [256, 3] -> uint8 [1, 256, 1 or 3]."""
    return np.clip(levels, 0, 255).astype(np.uint8).reshape(1, 256, -1)


@lru_cache(maxsize=4096)
def _stretched(lowest: int, highest: int) -> np.ndarray:
    scale = 255 / (highest - lowest) if highest > lowest else 0
    return _lookup_table(LEVELS * scale - lowest * scale if scale else LEVELS)


@lru_cache
def _posterized(bits: int) -> np.ndarray:
    return _lookup_table(LEVELS & (0xFF00 >> min(max(bits, 1), 8)))


@lru_cache
def _solarized(threshold: int) -> np.ndarray:
    return _lookup_table(np.where(threshold <= LEVELS, 255 - LEVELS, LEVELS))


@lru_cache
def _brightened_below_half(addition: int) -> np.ndarray:
    return _lookup_table(np.where(LEVELS < 128, LEVELS + addition, LEVELS))


@lru_cache(maxsize=512)
def _scaled_around(mean: int, factor: float) -> np.ndarray:
    return _lookup_table(mean + factor * (LEVELS - mean))


# Operations that blend the image with a plainer one. A factor above 1 moves it away from the plainer one.


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the difference of the image from its gray version by `factor`."""
    return _blend(cv2.cvtColor(_luminance(image), cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the difference of the image from a smoothed version by `factor`. The outermost pixels stay as they are."""
    smooth = cv2.filter2D(image, -1, SMOOTHING)
    for edge in np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]:
        smooth[edge] = image[edge]
    return _blend(smooth, image, factor)


SMOOTHING = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def _blend(plain: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """Return plain + factor * (image - plain), clipped to 0 ... 255 and truncated.

    cv2.addWeighted rounds to the nearest integer. Adding -0.49 makes it truncate.
    """
    return cv2.addWeighted(image, factor, plain, 1 - factor, -0.49)


def _luminance(image: np.ndarray) -> np.ndarray:
    """Return the luminance, rounded to the nearest level: uint8 [h, w, 3] -> uint8 [h, w].

    The weights in cv2.cvtColor differ from Pillow's by 1 / 65536, and a factor would make the difference visible.
    """
    return cv2.transform(image.astype(np.float32), LUMINANCE).astype(np.uint8)


# Operations that move pixels.


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate about the center of the image."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2
    return _move(image, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def shear_x(image: np.ndarray, level: float) -> np.ndarray:
    """Shift each row `level` pixels farther to the left than the row above it. The first row stays."""
    return _move(image, (1, level, 0), (0, 1, 0))


def shear_y(image: np.ndarray, level: float) -> np.ndarray:
    """Shift each column `level` pixels farther upward than the column to its left. The first column stays."""
    return _move(image, (1, 0, 0), (level, 1, 0))


def translate_x(image: np.ndarray, pixels: float) -> np.ndarray:
    """Shift all columns by `pixels`, to the left if it is positive."""
    return _move(image, (1, 0, pixels), (0, 1, 0))


def translate_y(image: np.ndarray, pixels: float) -> np.ndarray:
    """Shift all rows by `pixels`, upward if it is positive."""
    return _move(image, (1, 0, 0), (0, 1, pixels))


def cutout(image: np.ndarray, half: int, y: float, x: float) -> np.ndarray:
    """Fill a square of side 2 * `half` with gray. The part of it that lies outside the image is ignored.

    `y` and `x`, in [0, 1), give its center as shares of the image's height and width.
    """
    row, column = int(y * image.shape[0]), int(x * image.shape[1])
    image = image.copy()
    image[max(0, row - half) : row + half, max(0, column - half) : column + half] = GRAY
    return image


def _move(image: np.ndarray, to_x: tuple[float, ...], to_y: tuple[float, ...]) -> np.ndarray:
    """Return an image whose pixel (x, y) is the input's pixel nearest to (to_x . (x, y, 1), to_y . (x, y, 1)).

    Halves are rounded up. cv2.warpAffine is not used because it rounds in fixed point: about one pixel in a hundred would be the
    neighbor of the nearest one.
    """
    source_pixels = _source_pixels(*image.shape[:2], to_x, to_y)
    return cv2.remap(image, source_pixels, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=(GRAY,) * 3)


@lru_cache(maxsize=32)  # A run needs ten entries: five operations at one magnitude and size, each with two signs.
def _source_pixels(height: int, width: int, to_x: tuple[float, ...], to_y: tuple[float, ...]) -> np.ndarray:
    """Return the (x, y) of the input from which each pixel comes, int16 [height, width, 2].

    Many coordinates of a shear are exact halves. The added 1e-6 rounds them up despite errors in floating point.
    """
    x, y = np.arange(width), np.arange(height)[:, None]
    return cv2.merge(
        [np.floor(by_x * x + (by_y * y + shift + 0.5 + 1e-6)).astype(np.int16) for by_x, by_y, shift in (to_x, to_y)]
    )


# The arguments of an operation, after the image, as functions of (strength, generator). `value` is the argument at m = 10.

Arguments = Callable[[Strength, np.random.Generator], tuple]


def _no_arguments(strength: Strength, rng: np.random.Generator) -> tuple:
    return ()


def _integer(value: float) -> Arguments:
    return lambda strength, rng: (int(strength.magnitude / 10 * value),)


def _threshold(value: float) -> Arguments:
    def arguments(strength: Strength, rng: np.random.Generator) -> tuple:
        threshold = int(strength.magnitude / 10 * value)
        return (threshold % 256 if strength.wraps else threshold,)

    return arguments


def _signed(value: float) -> Arguments:
    return lambda strength, rng: (strength.magnitude / 10 * value * _sign(rng),)


def _signed_length(value: float) -> Arguments:
    return lambda strength, rng: (strength.magnitude / 10 * value * strength.scale * _sign(rng),)


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _factor(strength: Strength, rng: np.random.Generator) -> tuple:
    return (strength.magnitude / 10 * 1.8 + 0.1,)


def _integer_length_and_center(value: float) -> Arguments:
    return lambda strength, rng: (int(strength.magnitude / 10 * value * strength.scale), *rng.random(2))


# The operations of distort_image_with_randaugment in big_vision's pp/archive/autoaugment.py, in its order, with values at m = 10.
OPERATIONS: dict[str, tuple[Callable[..., np.ndarray], Arguments]] = {
    "AutoContrast": (autocontrast, _no_arguments),
    "Equalize": (equalize, _no_arguments),
    "Invert": (invert, _no_arguments),
    "Rotate": (rotate, _signed(30)),  # degrees
    "Posterize": (posterize, _integer(4)),  # bits that are kept, so a lower magnitude is a stronger change
    "Solarize": (solarize, _threshold(256)),  # level
    "Color": (color, _factor),  # The factor is 1.9 at m = 10.
    "Contrast": (contrast, _factor),
    "Brightness": (brightness, _factor),
    "Sharpness": (sharpness, _factor),
    "ShearX": (shear_x, _signed(0.3)),  # pixels per row
    "ShearY": (shear_y, _signed(0.3)),  # pixels per column
    "TranslateX": (translate_x, _signed_length(100)),  # pixels of 224
    "TranslateY": (translate_y, _signed_length(100)),
    "Cutout": (cutout, _integer_length_and_center(40)),  # half a side, in pixels of 224
    "SolarizeAdd": (solarize_add, _integer(110)),  # levels
}
ROWS = tuple(OPERATIONS.values())
