"""The products as they are written for the compiler against the same as the paper's listing has them, in Flax's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mixer_jax.models import products
from mixer_jax.models.layers import patchify
from mixer_jax.models.products import Dense, LayerNorm, MlpBlock, PatchProjection, gelu
from mixer_jax.models.reference import Mlp

DTYPES = [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)]
every_platform = pytest.mark.parametrize("platform", ["cpu", "default"])
with_tpus = pytest.mark.parametrize("platform", ["cpu", "tpu", "default"])


@pytest.fixture(autouse=True)
def as_on(request, monkeypatch):
    """The forms of `platform`, which this machine's CPU can compute all."""
    platform = request.node.callspec.params.get("platform", "default") if hasattr(request.node, "callspec") else "default"
    forms = lambda *arguments, **forms: forms.get(platform, forms["default"])(*arguments)  # noqa: E731
    monkeypatch.setattr(jax.lax, "platform_dependent", forms)


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


class Stem(PatchProjection):
    def __call__(self, images: jax.Array) -> jax.Array:
        return super().__call__(patchify(images, self.patch_size))


@with_tpus
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_a_projection_of_patches_is_a_strided_convolution(dtype, tolerance, platform):
    images = jax.random.normal(jax.random.key(3), (3, 6, 10, 3), dtype)
    strided = nn.Conv(5, (2, 2), strides=(2, 2), padding="VALID", dtype=dtype)
    assert_same_layer(Stem(5, 2, dtype), strided, images, tolerance, into=lambda x: x, out=lambda y: y.reshape(3, 15, 5))


@with_tpus
@pytest.mark.parametrize("on_tokens", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance", "features"), [(*DTYPES[0], 4), (*DTYPES[0], 16), (*DTYPES[1], 4)])
def test_a_dense_layer_is_flaxs_on_tokens_between_two_transposes(dtype, tolerance, features, on_tokens, platform):
    x = jax.random.normal(jax.random.key(3), (3, 6, 8), dtype)
    ours = Dense(features, dtype, nn.initializers.lecun_normal(), nn.initializers.zeros, on_tokens)
    turned = (lambda a: jnp.swapaxes(a, 1, 2)) if on_tokens else (lambda a: a)
    assert_same_layer(ours, nn.Dense(features, dtype=dtype), x, tolerance, into=turned, out=turned)


@every_platform
def test_a_number_that_is_none_stays_one(platform):
    assert jnp.isnan(gelu(jnp.float32(jnp.nan))) and jnp.isnan(jax.grad(gelu)(jnp.float32(jnp.nan)))
    assert jnp.isinf(gelu(jnp.float32(jnp.inf)))


@every_platform
def test_the_derivative_of_gelu_is_its_derivative_at_all_sizes(platform):
    x = np.concatenate([np.linspace(-12, 12, 4801), [-1e4, 1e4]]).astype(np.float32)
    slope = jax.jit(jax.vmap(jax.grad(gelu)))(x)
    with jax.enable_x64():
        exact = jax.vmap(jax.grad(nn.gelu))(x.astype(np.float64))
    np.testing.assert_allclose(slope, exact, rtol=1e-6, atol=5e-6)


def test_the_derivative_of_gelu_in_bfloat16_is_rounded_once():
    x = jnp.linspace(-6, 6, 999, dtype=jnp.bfloat16)
    slope = jax.vmap(jax.grad(gelu))(x)
    np.testing.assert_array_equal(slope, jax.vmap(jax.grad(gelu))(x.astype(jnp.float32)).astype(jnp.bfloat16))


class Branch(nn.Module):
    """A norm and an MLP, in a block that adds nothing."""

    mlp_dim: int
    dropout: float = 0.0
    on_tokens: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        mlp = MlpBlock(self.mlp_dim, self.dropout, x.dtype, on_tokens=self.on_tokens, name="mlp")
        return mlp(x, LayerNorm(x.dtype, name="norm"), train=train)[1]


@pytest.mark.parametrize(("train", "on_tokens", "barriers"), [(True, 0, 0), (True, 1, 0), (False, 1, 0), (False, 0, 1)])
def test_the_compiler_may_not_fuse_gelu_into_channel_mixings_second_product_in_evaluation(train, on_tokens, barriers):
    block, x = Branch(mlp_dim=6, on_tokens=on_tokens), jnp.zeros((2, 3, 4))
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=train))
    program = jax.make_jaxpr(lambda params: block.apply(params, x, train=train))(params)
    assert str(program).count("optimization_barrier") == barriers


@pytest.mark.parametrize("on_tokens", [False, True])
def test_dropout_follows_both_dense_layers(on_tokens):
    """Between identities, an element passes with probability (1 - p) squared, divided by as much."""
    block = Branch(mlp_dim=64, dropout=0.5, on_tokens=on_tokens)
    identity = {"kernel": jnp.eye(64), "bias": jnp.zeros(64)}
    norm = {"scale": jnp.zeros(64), "bias": jnp.full(64, 20.0)}  # gelu(20) = 20
    params = {"norm": norm, "mlp": {"Dense_0": identity, "Dense_1": identity}}
    y = block.apply({"params": params}, jnp.zeros((4, 64, 64)), train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(np.unique(y), [0.0, 80.0])
    assert np.mean(y > 0) == pytest.approx(0.25, abs=0.02)


class Residual(nn.Module):
    """x + dense(gelu(dense(norm(x)))), with the parts of products.py or with the textbook's."""

    ours: bool
    dtype: jnp.dtype
    on_tokens: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.ours:
            mlp = MlpBlock(12, 0.0, self.dtype, on_tokens=self.on_tokens, name="mlp")
            x, y = mlp(x, LayerNorm(self.dtype, name="norm"), train=True)
            return x + y
        y = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        y = jnp.swapaxes(y, 1, 2) if self.on_tokens else y
        y = Mlp(12, self.dtype, name="mlp")(y)
        return x + (jnp.swapaxes(y, 1, 2) if self.on_tokens else y)


@with_tpus
@pytest.mark.parametrize("on_tokens", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_a_norm_and_an_mlp_on_a_residual_are_those_of_the_listing(platform, dtype, tolerance, on_tokens, monkeypatch):
    monkeypatch.setattr(products, "without_gradient", lambda bias: bias)  # here no norm comes after
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(3), (4, 9, 8), dtype)
    same = lambda x: x  # noqa: E731
    ours, listing = (Residual(whose, dtype, on_tokens) for whose in (True, False))
    assert_same_layer(ours, listing, x, tolerance, into=same, out=same)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@with_tpus
def test_the_bias_that_every_norm_takes_away_has_no_gradient_unless_dropout_comes_between(platform, dropout):
    """Token mixing's second: one number for all channels of a token. TPUs do not compute that zero."""

    @jax.jit
    @jax.grad
    def gradients(params):
        rngs = {"dropout": jax.random.key(0)}
        y = x + block.apply(params, x, train=True, rngs=rngs)
        return jnp.sum(weights * nn.LayerNorm(use_scale=False, use_bias=False).apply({}, y))

    block, (x, weights) = Branch(mlp_dim=12, dropout=dropout, on_tokens=True), jax.random.normal(jax.random.key(3), (2, 4, 9, 8))
    found = gradients(block.init(jax.random.key(0), x, train=False))["params"]["mlp"]["Dense_1"]
    size, of_bias = (float(jnp.abs(found[name]).max()) for name in ("kernel", "bias"))
    if dropout:
        assert of_bias > 0.1 * size
    else:
        assert of_bias == 0.0 if platform == "tpu" else 0.0 < of_bias < 1e-5 * size


@every_platform
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_a_layer_norm_is_flaxs(platform, dtype, tolerance):
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(3), (4, 9, 8), dtype)
    same = lambda x: x  # noqa: E731
    assert_same_layer(LayerNorm(dtype), nn.LayerNorm(dtype=dtype), x, tolerance, into=same, out=same)
