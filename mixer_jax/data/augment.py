"""What happens to an image between the source and the batch: random in training, fixed in evaluation.

A transform is a function (image uint8 [h, w, 3], generator) -> uint8 [size, size, 3]. RandAugment's place is between the flip and
the batch in `train_transform`.
"""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.config import UserError
from mixer_jax.data import images

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def train_transform(config: ConfigDict, image_size: int) -> Transform:
    """Crop and flip of `config.augment` (arXiv 2105.01601, section 3).

    Raises UserError for RandAugment, which Table 4 asks for on ImageNet and ImageNet-21k and which is not built yet.
    """
    if config.randaugment_layers:
        raise UserError(
            f"This config asks for RandAugment({config.randaugment_layers}, {config.randaugment_magnitude}), which is not built "
            "yet. To run without it, which is not the paper's recipe, add --config.augment.randaugment_layers=0."
        )

    def transform(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if config.crop == "inception":
            image = inception_crop(image, rng, config.crop_min_area, config.crop_min_aspect, config.crop_max_aspect)
        image = images.resize(image, image_size, image_size)
        if config.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        return image

    return transform


def eval_transform(resize: str, resize_size: int, image_size: int) -> Transform:
    """Resize (shorter side, or both sides: the two variants of supplement C), then the central square. Uses no randomness."""
    resize_size = resize_size or round(image_size * 256 / 224)
    if resize_size < image_size:
        raise UserError(f"resize_size is {resize_size}: it must be at least image_size={image_size}, which is cut out of it.")

    def transform(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        small = resize == "small"
        image = images.resize_small(image, resize_size) if small else images.resize(image, resize_size, resize_size)
        return images.central_crop(image, image_size)

    return transform


def inception_crop(
    image: np.ndarray, rng: np.random.Generator, min_area: float, min_aspect: float, max_aspect: float
) -> np.ndarray:
    """A random part of the image (Szegedy et al., arXiv 1409.4842), as TensorFlow's sample_distorted_bounding_box draws it.

    Aspect (width / height) uniform in its range, height uniform among those for which the area is at least `min_area` of the
    image and the part fits; after 100 vain draws the whole image. [h, w, 3] -> [h', w', 3], a view.
    """
    height, width = image.shape[:2]
    for _ in range(100):
        aspect = rng.uniform(min_aspect, max_aspect)
        lowest = round((min_area * height * width / aspect) ** 0.5)
        highest = min(round((height * width / aspect) ** 0.5), height, int((width + 0.5) / aspect))
        if lowest > highest:
            continue
        crop_height = int(rng.integers(lowest, highest + 1))
        crop_width = round(crop_height * aspect)
        if 0 < crop_width <= width and min_area * height * width <= crop_height * crop_width:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return image[top : top + crop_height, left : left + crop_width]
    return image
