"""The matrix products of a Mixer block and of the stem, and GELU and layer norm between them, as compilers run them fastest.

The function and the parameters are those of the paper's listing: a strided convolution, transposes around a dense layer, the tanh
form of GELU (benchmark/textbook.py, which a test compares with this). Only how it is written differs. CPUs and TPUs have some
forms of their own (cpu.py, tpu.py); what all others and TPUs share is here:

    stem      a patch's rows become channels, and the convolution has a width alone: 48 of 128 lanes do work, not 3
    tokens    W^T Y for each image, which is the paper's equation: nothing is transposed, and the gradient of the layer norm's
              bias is summed in the same pass as the gradient of its scale
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

from mixer_jax.models import cpu, tpu

GELU_SCALE, GELU_CUBIC = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the fit of arXiv 1606.08415, section 2

one_form_for_all = jax.make_user_context(False)  # `with one_form_for_all(True):` what is traced knows no platforms, as ONNX needs


def form(*, default: Callable, **by_platform: Callable) -> Callable:
    """Of some that compute the same, that of the platform for which the program is lowered.

    Within parallel.traced_on it is that of the mesh. Elsewhere all are traced, which takes longer, and one is chosen when the
    program is lowered; an exported program has all.
    """
    if one_form_for_all.value:
        return default
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device:
        return by_platform.get(device.platform, default)
    return functools.partial(jax.lax.platform_dependent, default=default, **by_platform)


def dense(x: jax.Array, kernel: jax.Array, dimension_numbers, precision=None) -> jax.Array:
    """[B, S, I] times [I, O]: nn.Dense's dot_general."""
    default = functools.partial(jax.lax.dot_general, dimension_numbers=dimension_numbers, precision=precision)
    return form(cpu=cpu.dense, tpu=tpu.dense, default=default)(x, kernel)


def columns(x: jax.Array, kernel: jax.Array, bias: jax.Array, activation: Callable) -> jax.Array:
    """The activation of each column of x [B, S, C] times kernel [S, D], plus bias [D] -> [B, D, C]."""

    def image_by_image(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        kernels = jnp.broadcast_to(kernel, (x.shape[0], *kernel.shape))
        return activation(jnp.einsum("bsd,bsc->bdc", kernels, x) + bias[None, :, None])

    return form(cpu=functools.partial(cpu.columns, activation=activation), default=image_by_image)(x, kernel, bias)


def patches(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each P x P patch of images [B, H, W, 3] times kernel [P, P, 3, C] -> [B, H / P, W / P, C]."""

    def convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
        (batch, height, width, colours), (patch, *_, hidden_dim) = images.shape, kernel.shape
        in_rows = images.reshape(batch, height // patch, patch, width, colours).transpose(0, 1, 3, 4, 2)
        return jax.lax.conv_general_dilated(
            in_rows.reshape(batch, height // patch, width, colours * patch),
            kernel.transpose(1, 2, 0, 3).reshape(1, patch, colours * patch, hidden_dim),
            window_strides=(1, patch),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return form(cpu=cpu.patches, default=convolution)(images, kernel)


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


def normed_hidden(
    x: jax.Array, scale: jax.Array, shift: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(x, gelu(y W + b)) of the layer norm y [B, S, C] of x: the norm's scale and shift [C], kernel [C, D] and bias [D].

    x is returned for its gradient's sake: what comes back by the residual is added where the norm's own is made.
    """
    norm = functools.partial(layer_norm, dtype=kernel.dtype)

    def plain(x, scale, shift, kernel, bias):
        y = dense(norm(x, scale, shift), kernel, (((2,), (0,)), ((), ())))
        return x, gelu(y + bias[None, None])

    return form(tpu=functools.partial(tpu.normed_hidden, norm, gelu), default=plain)(x, scale, shift, kernel, bias)


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
    """A linear map of each P x P patch, by the parameters of nn.Conv: [B, H, W, 3] -> [B, S, C], patches row by row."""

    hidden_dim: int
    patch_size: int
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        shape = (self.patch_size, self.patch_size, images.shape[-1], self.hidden_dim)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.hidden_dim,))
        images, kernel, bias = promote_dtype(images, kernel, bias, dtype=self.dtype)
        # The bias before the reshape: added after it, the TPU compiler lays all of a ViT out otherwise, a fifth slower.
        x = patches(images, kernel) + bias[None, None, None]
        return x.reshape(images.shape[0], -1, self.hidden_dim)


class TokenDense(nn.Module):
    """A dense layer on every column and its activation, by the parameters of nn.Dense: [B, S, C] -> [B, features, C]."""

    features: int
    dtype: Any
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros
    activation: Callable = lambda x: x

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return columns(x, kernel, bias, self.activation)


class NormedHidden(nn.Module):
    """A norm, a dense layer on every row by the parameters of nn.Dense, and gelu: [B, S, C] -> x itself, [B, S, features]."""

    features: int
    dtype: Any
    kernel_init: Callable
    bias_init: Callable

    @nn.compact
    def __call__(self, x: jax.Array, norm: LayerNorm) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        kernel, bias = promote_dtype(kernel, bias, dtype=self.dtype)
        return normed_hidden(x, *norm.parameters(x.shape[-1]), kernel, bias)


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
        options = {"dtype": self.dtype, "kernel_init": self.kernel_init, "bias_init": self.bias_init}
        if self.on_tokens:
            y = TokenDense(self.mlp_dim, activation=gelu, name="Dense_0", **options)(norm(x))
        else:
            x, y = NormedHidden(self.mlp_dim, name="Dense_0", **options)(x, norm)
            y = y if train else jax.lax.optimization_barrier(y)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        layer = TokenDense if self.on_tokens else functools.partial(nn.Dense, dot_general=dense)
        y = layer(x.shape[1 if self.on_tokens else -1], name="Dense_1", **options)(y)
        return x, nn.Dropout(self.dropout, deterministic=not train)(y)
