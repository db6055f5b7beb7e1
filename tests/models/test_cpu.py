"""What is written for CPUs is the function that JAX has by that name, and only CPUs get it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mixer_jax.models import cpu


def random(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


CONTRACT_LAST = (((2,), (0,)), ((), ()))
AS_CONVOLUTION = {"padding": "VALID", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
PAIRS = {  # ours, JAX's, arguments
    "dense, wider": (
        lambda x, w: cpu.dense(x, w, CONTRACT_LAST),
        lambda x, w: jax.lax.dot_general(x, w, CONTRACT_LAST),
        (random(2, 3, 4), random(4, 7)),
    ),
    "dense, narrower": (
        lambda x, w: cpu.dense(x, w, CONTRACT_LAST),
        lambda x, w: jax.lax.dot_general(x, w, CONTRACT_LAST),
        (random(2, 3, 7), random(7, 4)),
    ),
    "gelu": (cpu.gelu, nn.gelu, (jnp.concatenate([random(100) * 4, jnp.array([0.0, 100.0, -100.0, 1e10, -1e10])]),)),
    "stem": (
        lambda x, w: cpu.stem(x, w, (4, 4), **AS_CONVOLUTION),
        lambda x, w: jax.lax.conv_general_dilated(x, w, (4, 4), **AS_CONVOLUTION),
        (random(2, 8, 12, 3), random(4, 4, 3, 5)),
    ),
}
every_pair = pytest.mark.parametrize("ours, theirs, arguments", PAIRS.values(), ids=PAIRS)


def value_and_gradients(function, arguments):
    value, pull = jax.vjp(function, *arguments)
    return [value, *pull(jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))]


@every_pair
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_values_and_gradients_are_those_of_jax(ours, theirs, arguments, dtype, tolerance):
    arguments = [x.astype(dtype) for x in arguments]
    mine, expected = (jax.jit(value_and_gradients, static_argnums=0)(f, arguments) for f in (ours, theirs))
    for a, b in zip(mine, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = jnp.maximum(1.0, jnp.abs(b)).astype(jnp.float32)
        np.testing.assert_allclose(a.astype(jnp.float32) / scale, b.astype(jnp.float32) / scale, rtol=0, atol=4 * tolerance)


@every_pair
def test_other_platforms_have_nothing_of_it(ours, theirs, arguments):
    def operations(function, platform):
        traced = jax.jit(value_and_gradients, static_argnums=0).trace(function, arguments)
        lines = traced.lower(lowering_platforms=(platform,)).as_text().splitlines()
        names = {word for line in lines for word in line.split() if word.startswith("stablehlo.")}
        return names & {"stablehlo.exponential", "stablehlo.convolution", "stablehlo.optimization_barrier", "stablehlo.tanh"}

    assert operations(ours, "tpu") == operations(theirs, "tpu")


def test_a_number_that_is_none_stays_one():
    assert jnp.isnan(cpu.gelu(jnp.float32(jnp.nan))) and jnp.isnan(jax.grad(cpu.gelu)(jnp.float32(jnp.nan)))
    assert jnp.isinf(cpu.gelu(jnp.float32(jnp.inf)))
