"""Small models of each family with random parameters, for the tests of weights."""

import numpy as np

from mixer_jax.checkpoints.weights import Weights, expected_signatures
from mixer_jax.models.identify import ModelSpec

# The ViT has heads of 64 channels, as timm's have, because timm's files do not state the number of heads.
SMALL = {
    "mixer": ModelSpec(
        "mixer", {"variant": "S/4", "num_blocks": 2, "hidden_dim": 24, "channels_mlp_dim": 40, "tokens_mlp_dim": 12}, 7, 12
    ),
    "mixer without head": ModelSpec(
        "mixer", {"variant": "S/2", "num_blocks": 1, "hidden_dim": 8, "channels_mlp_dim": 10, "tokens_mlp_dim": 6}, None, 8
    ),
    "vit": ModelSpec(
        "vit", {"variant": "S/4", "num_blocks": 2, "hidden_dim": 128, "channels_mlp_dim": 96, "num_heads": 2}, 7, 12
    ),
    "vit, mean, pre-logits": ModelSpec(
        "vit",
        {"variant": "S/4", "num_blocks": 11, "hidden_dim": 64, "channels_mlp_dim": 8, "num_heads": 1, "pooling": "mean"}
        | {"pre_logits_dim": 16},
        5,
        8,
    ),
    "resnet": ModelSpec("resnet", {"variant": "R50x1", "hidden_dim": 32}, 7, 224),
}


def random_weights(model: ModelSpec) -> Weights:
    rng = np.random.default_rng(11)
    arrays = {
        name: rng.normal(scale=0.1, size=shape).astype(dtype) for name, (dtype, shape) in expected_signatures(model).items()
    }
    return Weights(arrays, "random numbers", "none", 3, {})
