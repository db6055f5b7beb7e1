"""From `config.model` to a model: the table of families, and what the name of a variant means."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.models import kernels, mixer, resnet, vit
from mixer_jax.models.layers import patchify, permute_into_rows
from mixer_jax.models.permutation import permute
from mixer_jax.options import RESNET_PATCH_SIZE, family_options


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of models, and how config.model becomes a model of it."""

    make: Callable[[ConfigDict, int | None], nn.Module]
    matmul_params: str  # A regular expression for the paths of parameters that only a matmul in config.model.dtype uses.
    # The sizes by name, for a family whose variants are SIZE/PATCH. Empty for a family that does not cut images into patches.
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_mixer(config: ConfigDict, num_classes: int | None) -> mixer.Mixer:
    """Return the Mixer of `config.variant`, such as "B/16", "S/8" or "B/14".

    A depth or width in the config that is not 0 replaces the variant's.
    """
    return mixer.Mixer(tile_size=config.tile_size, **_patch_model_fields(config, num_classes, mixer.SIZES))


def make_vit(config: ConfigDict, num_classes: int | None) -> vit.VisionTransformer:
    """Return the ViT of `config.variant`, such as "B/16".

    A depth, width or number of heads in the config that is not 0 replaces the variant's. Raises UserError if the number of heads
    does not divide the number of channels.
    """
    fields = _patch_model_fields(config, num_classes, vit.SIZES)
    size = fields["size"]
    if size.hidden_dim % size.num_heads:
        raise UserError(
            f"config.model.num_heads is {size.num_heads}: it must divide config.model.hidden_dim, {size.hidden_dim} (where one "
            f"of them is 0 it is that of {config.variant})."
        )
    return vit.VisionTransformer(pooling=config.pooling, pre_logits_dim=config.pre_logits_dim, **fields)


def make_resnet(config: ConfigDict, num_classes: int | None) -> resnet.ResNet:
    """Return the BiT-ResNet of `config.variant`, such as "R50x1".

    The width is 64, or config.hidden_dim if that is not 0, times the width factor in the variant's name. Raises UserError if it
    is not a multiple of the number of groups of the group norms, or if the variant does not exist.
    """
    depth, _, factor = config.variant.partition("x")
    if depth not in resnet.UNITS or factor not in map(str, resnet.WIDTH_FACTORS):
        raise UserError(
            f"config.model.variant is {config.variant!r}: with the family resnet it must be one of {', '.join(resnet.UNITS)}, an "
            f"x and a width factor of {', '.join(map(str, resnet.WIDTH_FACTORS))}, for example R50x1 or R152x4."
        )
    size = resnet.Size(resnet.UNITS[depth], int(factor))
    if config.hidden_dim:
        size = dataclasses.replace(size, base_width=config.hidden_dim)
    if size.root_width % resnet.GROUPS:
        raise UserError(
            f"config.model.hidden_dim is {config.hidden_dim}: times the width factor {factor} it must be a multiple of "
            f"{resnet.GROUPS}, the groups of every group norm."
        )
    return resnet.ResNet(size=size, **_shared_fields(config, num_classes))


FAMILIES = {
    "mixer": Family(make_mixer, r"(stem|MixerBlock_.*)/kernel", mixer.SIZES),
    "vit": Family(make_vit, r"(embedding|Transformer/.*)/kernel", vit.SIZES),
    "resnet": Family(make_resnet, r"(?!)"),  # This pattern matches no parameter, because kernels are standardized in float32.
}


def make_model(config: ConfigDict, num_classes: int | None) -> nn.Module:
    """Return the model of `config.model`, with K = `num_classes`, or without a head if that is None.

    Models of all families are called alike: model.apply({"params": params}, images, train=...) -> (logits, features by name).
    Raises UserError for a family or variant that does not exist, and for an option that the family does not have but that differs
    from its default.
    """
    family, options = _family(config), family_options(config.family)
    for field, default in default_config().model.items():
        if field not in options and config[field] != default:
            raise UserError(
                f"config.model.{field} is {config[field]!r}, but the family {config.family} has no such option: leave it at "
                f"{default!r}. Its options are {', '.join(options)}."
            )
    return family.make(config, num_classes)


def random_params(model: nn.Module, images: Any, key: jax.Array) -> dict[str, Any]:
    """Return random parameters in float32 for images of this shape.

    They do not depend on the platform's implementation of an operation, so only the portable one is traced. Tracing the
    implementations of all platforms takes 2.5 times as long (H/14: 2.2 instead of 0.9 seconds of CPU time).
    """
    with kernels.for_platform("portable"):
        return dict(model.init(key, images)["params"])


def param_shapes(model: nn.Module, images: Any) -> dict[str, Any]:
    """Return the shapes and dtypes of the parameters. `images` are arrays or their shapes. No parameter is allocated."""
    return jax.eval_shape(functools.partial(random_params, model), images, jax.random.key(0))


def compute_dtype(config: ConfigDict) -> Callable[[str], jnp.dtype]:
    """Return a function from a parameter's path to the type in which the model uses this parameter.

    Casting a parameter to this type before calling the model does not change the result.
    """
    matmul_params = re.compile(FAMILIES[config.family].matmul_params)
    return lambda path: jnp.dtype(config.dtype if matmul_params.fullmatch(path) else jnp.float32)


def host_transform(config: ConfigDict) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that the host applies to each image, uint8 [H, W, 3], before it is sent to a device.

    It permutes the image if the model has a permutation, and cuts it into patches for a model that begins with patches. A model
    does the same to images that are whole, so an image is permuted once on every way into the model.
    """
    sizes, permutation = _family(config).sizes, config.permutation
    if sizes:
        return functools.partial(patchify, patch_size=_size_and_patch(config, sizes)[1], permutation=permutation)
    return functools.partial(permute_into_rows, permutation=permutation) if permutation != "none" else lambda image: image


def pixel_permutation(config: ConfigDict) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that permutes an image, uint8 [H, W, 3], as the model of `config` sees it, for pictures of it."""
    sizes = _family(config).sizes
    patch_size = _size_and_patch(config, sizes)[1] if sizes else RESNET_PATCH_SIZE
    return functools.partial(permute, permutation=config.permutation, patch_size=patch_size)


def _family(config: ConfigDict) -> Family:
    if config.family not in FAMILIES:
        raise UserError(f"config.model.family is {config.family!r}: it must be one of {', '.join(FAMILIES)}.")
    return FAMILIES[config.family]


def _shared_fields(config: ConfigDict, num_classes: int | None) -> dict[str, Any]:
    """Return the arguments that the models of all families take."""
    return {
        "num_classes": num_classes,
        "dtype": jnp.dtype(config.dtype),
        "remat": config.remat,
        "head_bias_init": config.head_bias_init,
        "permutation": config.permutation,
    }


def _patch_model_fields(config: ConfigDict, num_classes: int | None, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that the models of all families with variants SIZE/PATCH take.

    Raises UserError for a permutation and patches of one pixel: whether such patches are permuted already cannot be seen.
    """
    size, patch_size = _size_and_patch(config, sizes)
    if patch_size == 1 and config.permutation != "none":
        raise UserError(
            f"config.model.permutation is {config.permutation!r}, and the patches of config.model.variant={config.variant} have "
            "one pixel: permuted images need larger patches."
        )
    return _shared_fields(config, num_classes) | {
        "patch_size": patch_size,
        "size": size,
        "dropout": config.dropout,
        "stoch_depth": config.stoch_depth,
        "stoch_depth_rescale": config.stoch_depth_rescale,
    }


def _size_and_patch(config: ConfigDict, sizes: Mapping[str, Any]) -> tuple[Any, int]:
    """Return the size and the patch size that a variant SIZE/PATCH names.

    A depth or width in the config that is not 0 replaces the one of the size.
    """
    size_name, _, patch_size = config.variant.partition("/")
    if size_name not in sizes or not patch_size.isdecimal() or int(patch_size) == 0:
        raise UserError(
            f"config.model.variant is {config.variant!r}: with the family {config.family} it must be SIZE/PATCH with a size of "
            f"{', '.join(sizes)} and a patch size in pixels. The papers have S/32, S/16, B/32, B/16, L/32, L/16 and H/14."
        )
    fields = [field.name for field in dataclasses.fields(sizes[size_name])]
    changes = {field: config[field] for field in fields if config[field] != 0}
    return dataclasses.replace(sizes[size_name], **changes), int(patch_size)
