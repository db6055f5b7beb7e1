"""What happens to an image between the source and the batch: random in training, fixed in evaluation.

A transform is a function (image uint8 [h, w, 3] or, in training, PartialJpeg; generator) -> uint8 [size, size, 3], or what a
`host_transform` makes of these pixels, such as patches (models/registry.py). Not here: the operations of RandAugment
(randaugment.py), and mixup, which needs a batch and happens on the device (training/mixup.py).
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
    return image


def train_transform(config: ConfigDict, image_size: int, host_transform: HostTransform = unchanged) -> Transform:
    """Return a transform: crop, flip and RandAugment of `config.augment`, in this order, then `host_transform`.

    The order is that of arXiv 2105.01601, section 3 and Table 4. What a crop leaves out is not resized, and only the resized
    image is flipped. Raises UserError for a size that does not fit.
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
    """Return a transform without randomness: resize, central square, then `host_transform`.

    What is resized is the shorter side or both sides: the two variants of supplement C.
    """
    resize_whole = _resizer(resize_kind, resize_size, image_size)

    def transform(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        return host_transform(central_crop(resize_whole(image), image_size))

    return transform


def _resizer(kind: str, resize_size: int, image_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what makes the shorter side ("small") or both sides ("square") resize_size pixels, before a square is cut out.

    With "whole" both sides become image_size, and nothing is left to cut off.
    """
    size = image_size if kind == "whole" else resize_size or round(image_size * 256 / 224)
    if size < image_size:
        raise UserError(f"resize_size is {size}: it must be at least image_size={image_size}, which is cut out of it.")
    return {
        "small": lambda image: resize_small(image, size),
        "square": lambda image: resize(image, size, size),
        "whole": lambda image: resize(image, size, size),
    }[kind]


# The training crops: config -> a transform to [image_size, image_size, 3].


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
    """Return any square of `size` pixels with equal chance, as BiT fine-tunes (arXiv 1912.11370). A view."""
    top, left = (int(rng.integers(side - size + 1)) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def inception_crop(
    image: np.ndarray, rng: np.random.Generator, min_area: float, min_aspect: float, max_aspect: float
) -> np.ndarray:
    """Return a random part of the image (Szegedy et al., arXiv 1409.4842).

    It is drawn as TensorFlow's sample_distorted_bounding_box draws it. Aspect (width / height) is uniform in its range, height
    uniform among those for which the area is at least `min_area` of the image and the part fits, one more where rounding to
    pixels leaves too small an area; after 100 vain draws it is the whole image. The position is uniform among all; TensorFlow
    never takes the last row and column. [h, w, 3] -> [h', w', 3], a view.
    """
    height, width = image.shape[:2]
    least = min_area * height * width
    for _ in range(100):
        draws = rng.random(4).tolist()  # at once, which takes a quarter of the time
        aspect = min_aspect + draws[0] * (max_aspect - min_aspect)
        highest = min(round((height * width / aspect) ** 0.5), height, int((width + 0.5) / aspect))
        lowest = min(round((least / aspect) ** 0.5), highest)
        crop_height = lowest + int(draws[1] * (highest + 1 - lowest))
        if crop_height * round(crop_height * aspect) < least:
            crop_height += 1
        crop_width = round(crop_height * aspect)
        if crop_height <= height and 0 < crop_width <= width and least <= crop_height * crop_width:
            top = int(draws[2] * (height + 1 - crop_height))
            left = int(draws[3] * (width + 1 - crop_width))
            return image[top : top + crop_height, left : left + crop_width]
    return image[:, :]
