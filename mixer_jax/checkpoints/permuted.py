"""What weights say of the permutation of their images (config.model.permutation). Their parameters do not show it.

The checkpoints of a run record it, and the size of the images. Files of weights are in formats of other projects, and a program
that reads one would give the model images that are not permuted. Therefore no such file is written.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mixer_jax.errors import UserError
from mixer_jax.models.identify import ModelSpec
from mixer_jax.options import PERMUTATIONS

NONE = PERMUTATIONS[0]


def permutation_metadata(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of a description of weights that says how their images are permuted; {} if they are not."""
    if meta.get("permutation", NONE) == NONE:
        return {}
    return {name: str(meta.get(name)) for name in ("permutation", "image_size")}


def with_permutation(model: ModelSpec, metadata: Mapping[str, str], path: str) -> ModelSpec:
    """Return a model, as its parameters show it, with the permutation that the metadata state.

    Raises UserError if the permutation is not known, or is of images of a size that the model does not take.
    """
    stated = permutation_metadata(metadata)
    if not stated:
        return model
    permutation, size = stated["permutation"], stated["image_size"]
    if permutation not in PERMUTATIONS or not size.isdecimal() or (int(size) != model.image_size and not model.takes_any_size):
        raise UserError(
            f"{path} says that its images of {size} px have the permutation {permutation!r}: it is damaged, or of a new version."
        )
    return dataclasses.replace(model, fields=model.fields | {"permutation": permutation}, image_size=int(size))


def check_permutation(metadata: Mapping[str, str], path: str, permutation: str, image_size: int) -> None:
    """Raise UserError unless weights were trained with this permutation of images of this size.

    Args:
      metadata: what the weights say of themselves.
      path: the path of the weights, for the message.
      permutation: config.model.permutation.
      image_size: config.image_size. It matters only if there is a permutation.
    """
    stated = permutation_metadata(metadata)
    trained = stated.get("permutation", NONE)
    if trained != permutation:
        raise UserError(
            f"config.model.permutation is {permutation!r}, and {path} was trained with {trained!r}. Its parameters are of no use "
            f"for images in another order. Set --config.model.permutation={trained}."
        )
    if stated and stated["image_size"] != str(image_size):
        raise UserError(
            f"config.image_size is {image_size}, and {path} was trained on permuted images of {stated['image_size']} px: another "
            f"size has another permutation. Set --config.image_size={stated['image_size']}."
        )


def permutation_note(metadata: Mapping[str, str]) -> str:
    """Return a sentence for pictures of weights that says that their places are those of permuted images, or else ""."""
    stated = permutation_metadata(metadata)
    return f" The model sees permuted images ({stated['permutation']}): places are those after the permutation." if stated else ""


def refuse_file(metadata: Mapping[str, str], path: str) -> None:
    """Raise UserError if weights of permuted images are to be written to a file in another project's format."""
    if stated := permutation_metadata(metadata):
        raise UserError(
            f"{path} was not written. The model was trained with config.model.permutation={stated['permutation']}, and a program "
            "that reads such a file would not permute its images. Write a run's folder with `convert`, or with `export "
            "--format=stablehlo` (or onnx) a program that permutes them itself."
        )
