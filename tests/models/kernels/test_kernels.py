"""Each platform's implementation of an operation computes what its definition computes, and what Flax's own layers compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from models.flax_layers import assert_same_layer

from mixer_jax.models import kernels
from mixer_jax.models.kernels import cpu, for_platform, per_platform, portable
from mixer_jax.models.layers import patchify
from mixer_jax.models.mlp import DenseParameters, LayerNorm, PatchProjection

DTYPES = [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)]
every_platform = pytest.mark.parametrize("platform", ["cpu", "tpu", "portable"])
every_gelu = pytest.mark.parametrize("gelu", [cpu.gelu, portable.gelu], ids=["cpu", "portable"])


@pytest.fixture(autouse=True)
def on_platform(request):
    """The implementations of `platform`, all of which this machine's CPU can compute."""
    platform = request.node.callspec.params.get("platform") if hasattr(request.node, "callspec") else None
    with for_platform(platform):
        yield


def test_an_implementation_is_that_of_the_platform_asked_for_or_else_of_that_which_the_program_is_lowered_for():
    operation = per_platform(lambda x: 1 * x, cpu=lambda x: 2 * x, tpu=lambda x: 3 * x)
    assert operation(1) == 2  # This machine's.
    for platform, expected in {"cpu": 2, "tpu": 3, "cuda": 1, "portable": 1}.items():
        with for_platform(platform):
            assert operation(1) == expected
    lowered = jax.jit(operation).trace(1.0).lower(lowering_platforms=("tpu",)).as_text()
    assert "3.0" in lowered and "2.0" not in lowered


class Stem(PatchProjection):
    def __call__(self, images: jax.Array) -> jax.Array:
        return super().__call__(patchify(images, self.patch_size))


@every_platform
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_a_projection_of_patches_is_a_strided_convolution(dtype, tolerance, platform):
    images = jax.random.normal(jax.random.key(3), (3, 6, 10, 3), dtype)
    strided = nn.Conv(5, (2, 2), strides=(2, 2), padding="VALID", dtype=dtype)
    assert_same_layer(Stem(5, 2, dtype), strided, images, tolerance, into=lambda x: x, out=lambda y: y.reshape(3, 15, 5))


class Dense(DenseParameters):
    """kernels.dense or, with `on_tokens`, kernels.token_dense, as a layer."""

    on_tokens: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        return (kernels.token_dense if self.on_tokens else kernels.dense)(x, *super().__call__())


@every_platform
@pytest.mark.parametrize("on_tokens", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance", "features"), [(*DTYPES[0], 4), (*DTYPES[0], 16), (*DTYPES[1], 4)])
def test_a_dense_layer_is_flaxs_on_tokens_between_two_transposes(dtype, tolerance, features, on_tokens, platform):
    x = jax.random.normal(jax.random.key(3), (3, 6, 8), dtype)
    turned = (lambda a: jnp.swapaxes(a, 1, 2)) if on_tokens else (lambda a: a)
    inits = nn.initializers.lecun_normal(), nn.initializers.zeros
    ours = Dense(x.shape[1 if on_tokens else 2], features, dtype, *inits, on_tokens)
    assert_same_layer(ours, nn.Dense(features, dtype=dtype), x, tolerance, into=turned, out=turned)


@every_gelu
def test_a_number_that_is_none_stays_one(gelu):
    assert jnp.isnan(gelu(jnp.float32(jnp.nan))) and jnp.isnan(jax.grad(gelu)(jnp.float32(jnp.nan)))
    assert jnp.isinf(gelu(jnp.float32(jnp.inf)))


@every_gelu
def test_the_derivative_of_gelu_is_its_derivative_at_all_sizes(gelu):
    x = np.concatenate([np.linspace(-12, 12, 4801), [-1e4, 1e4]]).astype(np.float32)
    # Optimized less than in production, tanh is less accurate.
    as_in_production = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
    slope = jax.jit(jax.vmap(jax.grad(gelu)), compiler_options=as_in_production)(x)
    with jax.enable_x64():
        exact = jax.vmap(jax.grad(nn.gelu))(x.astype(np.float64))
    np.testing.assert_allclose(slope, exact, rtol=1e-6, atol=5e-6)


def test_the_derivative_of_gelu_in_bfloat16_is_rounded_once():
    gelu = portable.gelu
    x = jnp.linspace(-6, 6, 999, dtype=jnp.bfloat16)
    slope = jax.vmap(jax.grad(gelu))(x)
    np.testing.assert_array_equal(slope, jax.vmap(jax.grad(gelu))(x.astype(jnp.float32)).astype(jnp.bfloat16))


@every_platform
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_a_layer_norm_is_flaxs(platform, dtype, tolerance):
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(3), (4, 9, 8), dtype)
    same = lambda x: x  # noqa: E731
    assert_same_layer(LayerNorm(dtype), nn.LayerNorm(dtype=dtype), x, tolerance, into=same, out=same)
