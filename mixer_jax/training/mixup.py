"""Mixup (Zhang et al., arXiv 1710.09412), as in the paper's code: one draw per batch, and the partner is the previous example."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key, Num


def mixup(
    key: Key[Array, ""], p: float, images: Num[Array, "batch ..."], targets: Float[Array, "batch classes"]
) -> tuple[Float[Array, "batch ..."], Float[Array, "batch classes"]]:
    """Return a x[i] + (1 - a) x[i - 1] for images and targets, where a = max(b, 1 - b) and b ~ Beta(p, p); x[-1] is the last.

    The paper does not say whether a is drawn once per batch or once per example; big_vision draws once per batch.
    """
    a = jax.random.beta(key, p, p)
    a = jnp.maximum(a, 1.0 - a)
    images, targets = (a * x + (1.0 - a) * jnp.roll(x, 1, axis=0) for x in (images, targets))
    return images, targets
