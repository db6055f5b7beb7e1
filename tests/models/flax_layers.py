"""Layers beside Flax's own: same parameters from the same key, same values, same gradients."""

import jax
import numpy as np
from flax import linen as nn


def values_and_gradients(layer: nn.Module, params: dict, x: jax.Array, project) -> tuple:
    """`project(layer's output)`, and the gradients of its weighted sum by parameters and input."""

    forward = lambda params, x: project(layer.apply(params, x))  # noqa: E731
    y = jax.eval_shape(forward, params, x)
    weights = np.random.default_rng(2).standard_normal(y.shape).astype(y.dtype)

    @jax.jit
    def run(params, x, weights):
        y, backward = jax.vjp(forward, params, x)
        return y, backward(weights)

    return run(params, x, weights)


def assert_same_layer(ours: nn.Module, flax_layer: nn.Module, x: jax.Array, tolerance: float, into, out) -> None:
    """Same parameters from the same key; then, with random ones, same values and gradients. into, out: Flax's shapes to ours."""
    drawn, expected = ours.init(jax.random.key(0), x), flax_layer.init(jax.random.key(0), into(x))
    jax.tree.map(np.testing.assert_array_equal, drawn, expected)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: np.asarray(p + 0.1 * rng.standard_normal(p.shape), np.float32), jax.device_get(drawn))
    mine = values_and_gradients(ours, params, x, lambda y: y)
    y, (of_params, of_x) = values_and_gradients(flax_layer, params, into(x), out)
    theirs = (y, (of_params, into(of_x)))
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        a, b = (np.asarray(v, np.float32) for v in (a, b))
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())
