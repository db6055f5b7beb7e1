"""The matrix products of a Mixer block and of the stem, and GELU and layer norm between them, as compilers run them fastest.

The function and the parameters are those of the paper's listing: a strided convolution, transposes around a dense layer, the tanh
form of GELU (models/reference.py, which a test compares with this). Only how it is written differs. CPUs and TPUs have some
forms of their own (cpu.py, tpu.py); what all others and TPUs share is here:

    stem      a product with patches, which the host has cut (layers.patchify)
    tokens    W^T Y for each image, which is the paper's equation: nothing is transposed
    gelu      its derivative by hand, from one tanh and in float32: fewer operations than differentiation leaves
    barrier   in evaluation, channel mixing's GELU is computed once and stored. The TPU compiler would fuse it with the second
              product and compute it again for every tile of the output. Training has none: it stores what GELU reads, and would
              then store both. Nor has token mixing: as one kernel, it stores nothing in between, which is faster for B and L.

What each gains was told by the TPU compiler's estimates; `python -m mixer_jax plan --table speed` prints all against the listing.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from mixer_jax.models.kernels import cpu, tpu

GELU_SCALE, GELU_CUBIC = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the fit of arXiv 1606.08415, section 2

portable_only = jax.make_user_context(False)  # `with portable_only(True):` what is traced knows no platforms, as ONNX needs


def form(*, default: Callable, **by_platform: Callable) -> Callable:
    """Of some that compute the same, that of the platform for which the program is lowered.

    Within parallel.use_mesh_in_models it is that of the mesh. Elsewhere all are traced, which takes longer, and one is chosen
    when the program is lowered; an exported program has all.
    """
    if portable_only.value:
        return default
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device:
        return by_platform.get(device.platform, default)
    return functools.partial(jax.lax.platform_dependent, default=default, **by_platform)


def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, S, I] times [I, O], or a kernel whose first axes together are I."""

    def flat(product: Callable) -> Callable:
        return lambda x, kernel: product(x, kernel.reshape(-1, kernel.shape[-1]))

    return form(cpu=flat(cpu.dense), tpu=tpu.dense, default=flat(jnp.matmul))(x, kernel)


def columns(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, activation: Callable[[jax.Array], jax.Array] = lambda y: y
) -> jax.Array:
    """The activation of each column of x [B, S, C] times kernel [S, D], plus bias [D] -> [B, D, C]."""

    def image_by_image(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return activation(tpu.columns(x, kernel, bias))

    return form(cpu=functools.partial(cpu.columns, activation=activation), default=image_by_image)(x, kernel, bias)


def gelu(x: jax.Array) -> jax.Array:
    """x (1 + tanh(a (x + b x^3))) / 2."""
    return form(cpu=cpu.gelu, default=_gelu)(x)


@jax.custom_jvp
def _gelu(x: jax.Array) -> jax.Array:
    return nn.gelu(x)


@_gelu.defjvp
def _gelu_jvp(primals, tangents):
    """With t the tanh, the derivative is (1 + t) / 2 (1 + x (1 - t) a (1 + 3 b x^2))."""
    (x,), (dx,) = primals, tangents
    x32 = x.astype(jnp.float32)
    square = x32 * x32
    t = jnp.tanh(x32 * (GELU_SCALE + GELU_SCALE * GELU_CUBIC * square))
    slope = (0.5 + 0.5 * t) * (1.0 + x32 * (1.0 - t) * (GELU_SCALE + 3.0 * GELU_SCALE * GELU_CUBIC * square))
    return _gelu(x), (slope * dx).astype(x.dtype)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: Any) -> jax.Array:
    """nn.LayerNorm over the last axis."""

    def norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return nn.LayerNorm(epsilon=cpu.LAYER_NORM_EPSILON, dtype=dtype, parent=None).apply(
            {"params": {"scale": scale, "bias": bias}}, x
        )

    return form(cpu=functools.partial(cpu.layer_norm, norm), default=norm)(x, scale, bias)


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y [B, S, C] plus bias [C]."""
    return form(tpu=tpu.add_bias, default=lambda y, bias: y + bias[None, None])(y, bias)


def without_gradient(bias: jax.Array) -> jax.Array:
    """A bias whose gradient is zero; computed, it would be rounding noise."""
    return form(tpu=jax.lax.stop_gradient, default=lambda bias: bias)(bias)


def normed_hidden(
    x: jax.Array, scale: jax.Array, shift: jax.Array, kernel: jax.Array, bias: jax.Array, *, on_tokens: bool
) -> tuple[jax.Array, jax.Array]:
    """(x, gelu(y W + b)) of the layer norm y [B, S, C] of x: the norm's scale and shift [C], kernel W [C, D] and bias b [D].

    With `on_tokens`, gelu(W^T y + b), of W [S, D] -> [B, D, C]. x is returned for its gradient's sake: what comes back by the
    residual is added where the norm's own is made.
    """
    norm = functools.partial(layer_norm, dtype=kernel.dtype)

    def plain(x, scale, shift, kernel, bias):
        y = norm(x, scale, shift)
        return x, columns(y, kernel, bias, gelu) if on_tokens else gelu(dense(y, kernel) + bias[None, None])

    of_tpus = tpu.normed_columns if on_tokens else tpu.normed_rows
    return form(tpu=functools.partial(of_tpus, norm, gelu), default=plain)(x, scale, shift, kernel, bias)


def stored_gradient(x: jax.Array) -> jax.Array:
    """x. Its gradient is computed once, whatever the compiler thinks."""
    return form(tpu=tpu.stored_gradient, default=lambda x: x)(x)


class LayerNorm(nn.Module):
    """nn.LayerNorm over the last axis, by its parameters."""

    dtype: Any

    @nn.compact
    def parameters(self, features: int) -> tuple[jax.Array, jax.Array]:
        """scale and bias [features], float32."""
        scale = self.param("scale", nn.initializers.ones, (features,))
        return scale, self.param("bias", nn.initializers.zeros, (features,))

    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, *self.parameters(x.shape[-1]), self.dtype)


class PatchProjection(nn.Module):
    """A linear map of each patch, by the parameters of nn.Conv: [B, H / P, W / P, P P 3] -> [B, S, C], patches row by row."""

    hidden_dim: int
    patch_size: int
    dtype: Any

    @nn.compact
    def __call__(self, patches: jax.Array) -> jax.Array:
        pixels = (self.patch_size, self.patch_size, patches.shape[-1] // self.patch_size**2)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (*pixels, self.hidden_dim))
        bias = self.param("bias", nn.initializers.zeros, (self.hidden_dim,))
        patches, kernel, bias = promote_dtype(patches, kernel, bias, dtype=self.dtype)
        tokens = patches.reshape(patches.shape[0], -1, patches.shape[-1])
        return add_bias(dense(tokens, kernel), bias)


class Dense(nn.Module):
    """A dense layer on each row or, `on_tokens`, each column of [B, S, C], by the parameters of nn.Dense."""

    features: int
    dtype: Any
    kernel_init: Callable
    bias_init: Callable
    on_tokens: bool
    bias_is_lost: bool = False  # what follows takes it away again

    @nn.compact
    def parameters(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Its kernel and bias, in the type that `x` is multiplied in."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[1 if self.on_tokens else 2], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        return promote_dtype(kernel, bias, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.parameters(x)
        bias = without_gradient(bias) if self.bias_is_lost else bias
        if self.on_tokens:
            return columns(x, kernel, bias)
        return add_bias(dense(x, kernel), bias)

    def normed_hidden(self, x: jax.Array, norm: LayerNorm) -> tuple[jax.Array, jax.Array]:
        """(x, gelu of this layer on norm(x))."""
        return normed_hidden(x, *norm.parameters(x.shape[-1]), *self.parameters(x), on_tokens=self.on_tokens)


class MlpBlock(nn.Module):
    """norm, dense, gelu (tanh form), dense on each row or, with `on_tokens`, each column of [B, S, C]; dropout after both dense.

    Returns x itself, to add to, and what to add.
    """

    mlp_dim: int
    dropout: float
    dtype: Any
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros
    on_tokens: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, norm: LayerNorm, *, train: bool) -> tuple[jax.Array, jax.Array]:
        layer = functools.partial(
            Dense, dtype=self.dtype, kernel_init=self.kernel_init, bias_init=self.bias_init, on_tokens=self.on_tokens
        )
        x, y = layer(self.mlp_dim, name="Dense_0").normed_hidden(x, norm)
        if not (train or self.on_tokens):
            y = jax.lax.optimization_barrier(y)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        # On columns, its bias is the same number for all channels of a token, and every norm to come subtracts that.
        bias_is_lost = self.on_tokens and not (train and self.dropout)
        y = layer(x.shape[1 if self.on_tokens else 2], bias_is_lost=bias_is_lost, name="Dense_1")(y)
        return x, nn.Dropout(self.dropout, deterministic=not train)(y)
