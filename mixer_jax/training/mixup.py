"""Mixup (Zhang et al., arXiv 1710.09412), as in the paper's code: one draw a batch, the partner is the next example."""

import jax
import jax.numpy as jnp


def mixup(key: jax.Array, p: float, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """a ~ Beta(p, p), a <- max(a, 1 - a); images [B, ...] and targets [B, K] become a x + (1 - a) x of the row before.

    The paper does not say whether a is drawn once a batch or once an example; big_vision draws once a batch.
    """
    a = jax.random.beta(key, p, p)
    a = jnp.maximum(a, 1.0 - a)
    images, targets = (a * x + (1.0 - a) * jnp.roll(x, 1, axis=0) for x in (images, targets))
    return images, targets
