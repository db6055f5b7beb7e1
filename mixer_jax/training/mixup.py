"""Mixup (Zhang et al., arXiv 1710.09412), as in the paper's code: each example is mixed with the previous one of its batch."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key, Num


def mixup(
    key: Key[Array, ""], p: float, images: Num[Array, "batch ..."], targets: Float[Array, "batch classes"]
) -> tuple[Float[Array, "batch ..."], Float[Array, "batch classes"]]:
    """Return a x[i] + (1 - a) x[i - 1] for images and targets x. The first example is mixed with the last.

    Here a = max(b, 1 - b) with b ~ Beta(p, p), drawn once for the whole batch. The paper does not say whether b is drawn per
    batch or per example. The authors' code (big_vision) draws it per batch.
    """
    a = jax.random.beta(key, p, p)
    a = jnp.maximum(a, 1.0 - a)
    images, targets = (a * x + (1.0 - a) * jnp.roll(x, 1, axis=0) for x in (images, targets))
    return images, targets
