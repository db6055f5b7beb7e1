"""What all evaluators share: the forward pass, and the question between two batches whether to stop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from mixer_jax.models.layers import normalize_pixels
from mixer_jax.parallel import Params, use_mesh_in_models

Predict = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
CheckStop = Callable[[], None]  # asked at the same points on every host; raises an exception of the caller's to stop there


def go_on() -> None:
    """Never stop: a CheckStop."""


def make_predict(model: nn.Module, mesh: Mesh | None = None) -> Predict:
    """(params, uint8 images [B, H, W, 3]) -> float32 logits [B, K] and features pre_logits [B, C]; to be called under jit.

    Images may be in the layout that the model takes from the host (registry.host_transform).
    Without a mesh, for parameters that are whole.
    """

    def predict(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        with use_mesh_in_models(mesh):
            logits, features = model.apply({"params": params}, normalize_pixels(images), train=False)
        return logits.astype(jnp.float32), features["pre_logits"].astype(jnp.float32)

    return predict
