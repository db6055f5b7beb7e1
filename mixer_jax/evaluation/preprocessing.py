"""The preprocessing that weights and exported programs state: how an image becomes the pixels that a model sees."""

import dataclasses
import json

import numpy as np

from mixer_jax.data.images.augment import HostTransform, Transform, eval_transform, unchanged
from mixer_jax.errors import UserError
from mixer_jax.options import RESIZES


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """A resize and a crop of the central square, as in the evaluators.

    Attributes:
      resize: "small" resizes the shorter side, "square" both sides, "whole" both sides to the final size.
      resize_size: the length of a resized side in pixels.
      image_size: height and width of the result in pixels.
    """

    resize: str
    resize_size: int
    image_size: int

    def transform(self, host_transform: HostTransform = unchanged) -> Transform:
        """Return the function that makes a model's input from an image; `host_transform` is applied to the final pixels."""
        return eval_transform(self.resize, self.resize_size, self.image_size, host_transform)

    def at_size(self, image_size: int) -> "Preprocessing":
        """Return the same preprocessing for images of another size: the central crop keeps its share."""
        return Preprocessing(self.resize, round(self.resize_size * image_size / self.image_size), image_size)

    def blank(self, transform: Transform) -> np.ndarray:
        """Return what a transform makes of a black image."""
        return transform(np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0))


def read_preprocessing(steps: object, path: str) -> Preprocessing:
    """Return the preprocessing that `steps` describe, which the file or run at `path` states of itself.

    Raises UserError if they are not what `checkpoints.weights.preprocessing` returns.
    """
    found = steps if isinstance(steps, dict) else {}
    resize, resize_size, image_size = (found.get(name) for name in ("resize", "resize_size", "central_crop"))
    sizes = [size for size in (resize_size, image_size) if isinstance(size, int) and 1 <= size < 2**14]
    if resize not in RESIZES or len(sizes) < 2 or image_size > resize_size:
        raise UserError(f"{path}: its description of the preprocessing is damaged: {json.dumps(steps)[:200]}.")
    return Preprocessing(resize, resize_size, image_size)


def size_note(stated: Preprocessing, image_size: int, path: str) -> str:
    """Return a warning if a model that takes images of `image_size` states another size, or else ""."""
    if stated.image_size == image_size:
        return ""
    return (
        f"{path} names images of {stated.image_size} px, and its parameters are for {image_size}: it is given images of "
        f"{image_size} px."
    )
