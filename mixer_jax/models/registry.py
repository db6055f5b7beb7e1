"""From `config.model` to a model: the table of families, and the reading of a variant's name."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from mixer_jax.config import UserError
from mixer_jax.models.mixer import SIZES, Mixer


def make_mixer(config: ConfigDict, num_classes: int | None) -> Mixer:
    """Mixer of `config.variant`, such as "B/16", "S/8" or "B/14", with the widths that the config replaces."""
    size_name, _, patch_size = config.variant.partition("/")
    if size_name not in SIZES or not patch_size.isdecimal() or int(patch_size) == 0:
        raise UserError(
            f"config.model.variant is {config.variant!r}: it must be SIZE/PATCH with a size of {', '.join(SIZES)} and a patch "
            "size in pixels. The paper has S/32, S/16, B/32, B/16, L/32, L/16 and H/14."
        )
    fields = [field.name for field in dataclasses.fields(SIZES[size_name])]
    changes = {field: config[field] for field in fields if config[field] != 0}
    return Mixer(
        num_classes=num_classes,
        patch_size=int(patch_size),
        size=dataclasses.replace(SIZES[size_name], **changes),
        dropout=config.dropout,
        stoch_depth=config.stoch_depth,
        stoch_depth_rescale=config.stoch_depth_rescale,
        dtype=jnp.dtype(config.dtype),
        remat=config.remat,
        head_bias_init=config.head_bias_init,
    )


FAMILIES = {"mixer": make_mixer}


def make_model(config: ConfigDict, num_classes: int | None) -> nn.Module:
    """The model of `config.model`. Every family is called as model.apply(params, images, train=...) -> (logits, features)."""
    if config.family not in FAMILIES:
        raise UserError(f"config.model.family is {config.family!r}: it must be one of {', '.join(FAMILIES)}.")
    return FAMILIES[config.family](config, num_classes)
