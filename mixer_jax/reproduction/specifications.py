"""What our code has where Tables 1 and 4 specify something: sizes of models, and options of the pre-training configs."""

import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import app
from mixer_jax.config import default_config
from mixer_jax.models.registry import make_model, param_shapes
from mixer_jax.reproduction.recipes import CONFIGS, PRETRAININGS

PIXELS = 224


@functools.cache
def model_sizes(variant: str) -> dict[str, float]:
    """Return the columns of Table 1 for our model of this variant, from the shapes of its parameters. Nothing is allocated."""
    config = default_config()
    config.model.variant = variant
    shapes = param_shapes(make_model(config.model, None), jax.ShapeDtypeStruct((1, PIXELS, PIXELS, 3), np.float32))
    tokens, tokens_mlp = shapes["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"].shape
    hidden, channels_mlp = shapes["MixerBlock_0"]["channel_mixing"]["Dense_0"]["kernel"].shape
    return {
        "layers": sum(name.startswith("MixerBlock_") for name in shapes),
        "patch": PIXELS / tokens**0.5,
        "hidden": hidden,
        "tokens": tokens,
        "channels_mlp": channels_mlp,
        "tokens_mlp": tokens_mlp,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6,
    }


@functools.cache
def recipe_options(data: str, size: str) -> dict[str, float | str]:
    """Return the columns of Table 4 in our configs for a data set and a size, such as Mixer-B.

    Where the configs differ, the values are joined by a slash.
    """
    files = [
        file
        for (group, model), recipes in PRETRAININGS.items()
        if (group, model.partition("/")[0]) == (data, size)
        for file in recipes.values()
    ]
    columns: dict[str, set[float]] = {}
    for file in files:
        for name, value in _options(app.read_config(CONFIGS + file, [])).items():
            columns.setdefault(name, set()).add(value)
    return {
        name: values.pop() if len(values) == 1 else "/".join(f"{value:g}" for value in sorted(values))
        for name, values in columns.items()
    }


def _options(config: ConfigDict) -> dict[str, float]:
    return {
        "epochs": config.total.epochs,
        "learning_rate": config.optimizer.learning_rate,
        "weight_decay": config.optimizer.weight_decay,
        "randaugment": config.augment.randaugment_magnitude,
        "mixup": config.augment.mixup,
        "dropout": config.model.dropout,
        "stochastic_depth": config.model.stoch_depth,
    }
