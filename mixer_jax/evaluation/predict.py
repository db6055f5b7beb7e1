"""The parts that all evaluators share: the forward pass, and the check between two batches whether to stop.

Predictions and the Python API use the same forward pass.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from mixer_jax.models.layers import normalize_pixels
from mixer_jax.parallel import Params, use_mesh_in_models

Predict = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
"""A function from parameters and uint8 images [B, H, W, 3] to float32 logits [B, K] and float32 features pre_logits [B, C]."""

CheckStop = Callable[[], None]
"""A function that evaluators call between two batches, at the same points on every host. It raises an exception to stop there."""


def never_stop() -> None:
    """Let the evaluation continue. This is the default CheckStop."""


def make_predict(model: nn.Module, mesh: Mesh | None = None) -> Predict:
    """Return a function from (params, images) to (logits, features), which callers compile with `jax.jit`.

    The images are uint8 [B, H, W, 3], or patchified on the host as `models.registry.host_transform` does for models with a patch
    stem. The logits are float32 [B, K], the features pre_logits float32 [B, C].

    Without a mesh, the parameters must not be sharded.
    """

    def predict(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        with use_mesh_in_models(mesh):
            logits, features = model.apply({"params": params}, normalize_pixels(images), train=False)
        return logits.astype(jnp.float32), features["pre_logits"].astype(jnp.float32)

    return predict


def make_features(model: nn.Module, mesh: Mesh | None = None) -> Callable[..., dict[str, jax.Array]]:
    """Return a function from (params, images, names) to {name: features, float32 [B, ...]}, for `jax.jit` with static names.

    The parameters and images are those of `make_predict`. `names` is None for all features of the model.
    """

    def compute_features(params: Params, images: jax.Array, names: tuple[str, ...] | None) -> dict[str, jax.Array]:
        with use_mesh_in_models(mesh):
            _, features = model.apply({"params": params}, normalize_pixels(images), train=False)
        return {name: features[name].astype(jnp.float32) for name in (features if names is None else names)}

    return compute_features
