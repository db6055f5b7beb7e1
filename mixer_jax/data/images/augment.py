"""The transforms from an image of a source to the image in a batch: random in training, fixed in evaluation.

A transform is a function (image, generator) -> uint8 [size, size, 3]. The image is uint8 [h, w, 3] or, in training, also a
PartialJpeg. If a `host_transform` is given, the transform returns what that function makes of the pixels, such as patches
(models/registry.py). The operations of RandAugment are in randaugment.py. Mixup needs a batch, so it runs on the device
(training/mixup.py).
"""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.images.randaugment import randaugment
from mixer_jax.data.images.resize import central_crop, resize, resize_small
from mixer_jax.errors import UserError

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
HostTransform = Callable[[np.ndarray], np.ndarray]


def unchanged(image: np.ndarray) -> np.ndarray:
    """Return the image itself: the `host_transform` of models that take pixels."""
    return image


def train_transform(config: ConfigDict, image_size: int, host_transform: HostTransform = unchanged) -> Transform:
    """Return the training transform: crop, flip and RandAugment, in this order, then `host_transform`.

    The order is that of arXiv 2105.01601, section 3 and Table 4. To save work, an inception crop resizes only the part that it
    takes, and the flip comes after the resize.

    Args:
      config: config.augment.
      image_size: height and width of the result, in pixels.
      host_transform: what turns the pixels into the model's input.

    Raises:
      UserError: config.augment.resize_size is smaller than `image_size`.
    """
    crop = CROPS[config.crop](config, image_size)
    randaugment_of_run = functools.partial(
        randaugment,
        layers=config.randaugment_layers,
        magnitude=config.randaugment_magnitude,
        solarize=config.randaugment_solarize,
        lengths=config.randaugment_lengths,
    )

    def transform(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = crop(image, rng)
        if config.flip and rng.random() < 0.5:
            image = cv2.flip(image, 1)
        return host_transform(randaugment_of_run(image, rng))

    return transform


def eval_transform(resize_kind: str, resize_size: int, image_size: int, host_transform: HostTransform = unchanged) -> Transform:
    """Return the evaluation transform: resize, crop the central square, then `host_transform`.

    It uses no randomness. The two variants of arXiv 2105.01601, supplement C, are `resize_kind` "square" (i) and "small" (ii).

    Args:
      resize_kind: "small" resizes the shorter side, "square" both sides, and "whole" both sides without a crop afterwards.
      resize_size: the length of a resized side in pixels; 0 stands for image_size * 256 / 224, rounded.
      image_size: height and width of the result, in pixels.
      host_transform: what turns the pixels into the model's input.

    Raises:
      UserError: `resize_size` is smaller than `image_size`.
    """
    resize_whole = _resizer(resize_kind, resize_size, image_size)

    def transform(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        return host_transform(central_crop(resize_whole(image), image_size))

    return transform


def _resizer(kind: str, resize_size: int, image_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that resizes an image before a square of `image_size` pixels is cropped from it.

    Kind "small" makes the shorter side `resize_size` pixels, "square" makes both sides `resize_size`, and "whole" makes both
    sides `image_size`, so that the crop removes nothing.
    """
    size = image_size if kind == "whole" else resize_size or round(image_size * 256 / 224)
    if size < image_size:
        raise UserError(f"resize_size is {size}: it must be at least image_size={image_size}, which is cut out of it.")
    return {
        "small": lambda image: resize_small(image, size),
        "square": lambda image: resize(image, size, size),
        "whole": lambda image: resize(image, size, size),
    }[kind]


# The training crops. Each function takes (config.augment, image_size) and returns a transform whose result is
# uint8 [image_size, image_size, 3]. `image[:, :]` turns a PartialJpeg into pixels.


def _make_inception_crop(config: ConfigDict, image_size: int) -> Transform:
    def crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        part = inception_crop(image, rng, config.crop_min_area, config.crop_min_aspect, config.crop_max_aspect)
        return resize(part, image_size, image_size)

    return crop


def _make_random_crop(config: ConfigDict, image_size: int) -> Transform:
    resize_whole = _resizer(config.resize, config.resize_size, image_size)
    return lambda image, rng: random_crop(resize_whole(image[:, :]), rng, image_size)


def _make_whole(config: ConfigDict, image_size: int) -> Transform:
    return lambda image, rng: resize(image[:, :], image_size, image_size)


CROPS = {"inception": _make_inception_crop, "random": _make_random_crop, "resize": _make_whole}


def random_crop(image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a view of a random square of `size` pixels; every position has the same probability.

    BiT (arXiv 1912.11370) fine-tunes with this crop.
    """
    top, left = (int(rng.integers(side - size + 1)) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def inception_crop(
    image: np.ndarray, rng: np.random.Generator, min_area: float, min_aspect: float, max_aspect: float
) -> np.ndarray:
    """Return a view of a random part of the image (Szegedy et al., arXiv 1409.4842): [h, w, 3] -> [h', w', 3].

    The part is drawn as in TensorFlow's sample_distorted_bounding_box. The aspect, width / height, is uniform in its range. The
    height is uniform among those at which the part fits into the image and has at least `min_area` of its area; the height is
    increased by one pixel if rounding made the area too small. If 100 draws give no such part, the whole image is returned.

    The position is uniform among all possible ones. Here TensorFlow differs: its crops never contain the last row and column.

    Args:
      image: the pixels, or a PartialJpeg, of which only the needed rows are then decoded.
      rng: four numbers are drawn from it for each attempt.
      min_area: the smallest area, as a share of the image's.
      min_aspect: the smallest width / height.
      max_aspect: the largest width / height.
    """
    height, width = image.shape[:2]
    smallest_area = min_area * height * width
    for _ in range(100):
        draws = rng.random(4).tolist()  # One call takes a quarter of the time of four calls.
        aspect = min_aspect + draws[0] * (max_aspect - min_aspect)
        highest = min(round((height * width / aspect) ** 0.5), height, int((width + 0.5) / aspect))
        lowest = min(round((smallest_area / aspect) ** 0.5), highest)
        crop_height = lowest + int(draws[1] * (highest + 1 - lowest))
        if crop_height * round(crop_height * aspect) < smallest_area:
            crop_height += 1
        crop_width = round(crop_height * aspect)
        if crop_height <= height and 0 < crop_width <= width and smallest_area <= crop_height * crop_width:
            top = int(draws[2] * (height + 1 - crop_height))
            left = int(draws[3] * (width + 1 - crop_width))
            return image[top : top + crop_height, left : left + crop_width]
    return image[:, :]
