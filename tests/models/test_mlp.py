"""A residual MLP is the reference model's, whatever the platform; where dropout and the barrier of evaluation are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from models.flax_layers import assert_same_layer

from mixer_jax.models import kernels
from mixer_jax.models.kernels import for_platform
from mixer_jax.models.layers import StochasticDepth
from mixer_jax.models.mlp import LayerNorm, ResidualMlp
from mixer_jax.models.reference import Mlp

every_platform = pytest.mark.parametrize("platform", ["cpu", "tpu", "portable"])


@pytest.fixture(autouse=True)
def on_platform(request):
    """The implementations of `platform`, all of which this machine's CPU can compute."""
    platform = request.node.callspec.params.get("platform", "portable") if hasattr(request.node, "callspec") else "portable"
    with for_platform(platform):
        yield


class Block(nn.Module):
    """A residual MLP in a block that has nothing else."""

    mlp_dim: int
    dtype: jnp.dtype = jnp.float32
    dropout: float = 0.0
    on_tokens: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        norm, drop = LayerNorm(self.dtype, name="norm"), StochasticDepth(0.0, False)
        return ResidualMlp(self.mlp_dim, norm, drop, self.dropout, self.dtype, self.on_tokens, name="mlp")(x, train=train)


class ReferenceBlock(nn.Module):
    """The same of the reference model's parts."""

    mlp_dim: int
    dtype: jnp.dtype
    on_tokens: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        y = jnp.swapaxes(y, 1, 2) if self.on_tokens else y
        y = Mlp(self.mlp_dim, self.dtype, name="mlp")(y)
        return x + (jnp.swapaxes(y, 1, 2) if self.on_tokens else y)


@pytest.mark.parametrize(
    ("train", "on_tokens", "barriers"), [(True, False, 0), (True, True, 0), (False, True, 0), (False, False, 1)]
)
def test_the_compiler_may_not_fuse_gelu_into_channel_mixings_second_matmul_in_evaluation(train, on_tokens, barriers):
    block, x = Block(mlp_dim=6, on_tokens=on_tokens), jnp.zeros((2, 3, 4))
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=train))
    program = jax.make_jaxpr(lambda params: block.apply(params, x, train=train))(params)
    assert str(program).count("optimization_barrier") == barriers


@pytest.mark.parametrize("on_tokens", [False, True])
def test_dropout_follows_both_dense_layers(on_tokens):
    """Between identities, an element passes with probability (1 - p) squared, divided by as much."""
    block = Block(mlp_dim=64, dropout=0.5, on_tokens=on_tokens)
    identity = {"kernel": jnp.eye(64), "bias": jnp.zeros(64)}
    norm = {"scale": jnp.zeros(64), "bias": jnp.full(64, 20.0)}  # gelu(20) = 20
    params = {"norm": norm, "mlp": {"Dense_0": identity, "Dense_1": identity}}
    y = block.apply({"params": params}, jnp.zeros((4, 64, 64)), train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(np.unique(y), [0.0, 80.0])
    assert np.mean(y > 0) == pytest.approx(0.25, abs=0.02)


@every_platform
@pytest.mark.parametrize("on_tokens", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_a_residual_mlp_is_that_of_the_reference_model(platform, dtype, tolerance, on_tokens, monkeypatch):
    monkeypatch.setattr(kernels, "drop_zero_gradient", lambda bias: bias)  # Here no norm comes after.
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(3), (4, 9, 8), dtype)
    same = lambda x: x  # noqa: E731
    ours, reference = Block(12, dtype, on_tokens=on_tokens), ReferenceBlock(12, dtype, on_tokens)
    assert_same_layer(ours, reference, x, tolerance, into=same, out=same)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@every_platform
def test_the_bias_that_every_norm_takes_away_has_no_gradient_unless_dropout_comes_between(platform, dropout):
    """Token mixing's second: one number for all channels of a token. TPUs do not compute that zero."""

    @jax.jit
    @jax.grad
    def gradients(params):
        rngs = {"dropout": jax.random.key(0)}
        y = block.apply(params, x, train=True, rngs=rngs)
        return jnp.sum(weights * nn.LayerNorm(use_scale=False, use_bias=False).apply({}, y))

    block, (x, weights) = Block(mlp_dim=12, dropout=dropout, on_tokens=True), jax.random.normal(jax.random.key(3), (2, 4, 9, 8))
    found = gradients(block.init(jax.random.key(0), x, train=False))["params"]["mlp"]["Dense_1"]
    size, of_bias = (float(jnp.abs(found[name]).max()) for name in ("kernel", "bias"))
    if dropout:
        assert of_bias > 0.1 * size
    else:
        assert of_bias == 0.0 if platform == "tpu" else 0.0 < of_bias < 1e-5 * size
