"""The matrix products of a Mixer block and of the stem, and GELU and layer norm between them, as compilers run them fastest.

The function and the parameters are those of the paper's listing: a strided convolution, transposes around a dense layer, the tanh
form of GELU (benchmark/textbook.py, which a test compares with this). Only how it is written differs, in five places. CPUs have
forms of their own of all but the barrier, and of the layer norm's gradient (cpu.py).

    stem      a patch's rows become channels, and the convolution has a width alone: 48 of 128 lanes do work, not 3
    rows      a product of rows is a convolution over images, with a window of one. Of a plain product the TPU compiler decides
              the layout by whether images or tokens leave fewer of 128 lanes idle: with 128 images a core it would put images
              before tokens, and rearrange everything between token and channel mixing, a tenth of the step
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

from mixer_jax.models import cpu

GELU_SCALE, GELU_CUBIC = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the fit of arXiv 1606.08415, section 2

one_form_for_all = jax.make_user_context(False)  # `with one_form_for_all(True):` what is traced knows no platforms, as ONNX needs


def form(*, default: Callable, **by_platform: Callable) -> Callable:
    """Of some that compute the same, that of the platform for which the program is lowered; exported, it has all."""
    return default if one_form_for_all.value else functools.partial(jax.lax.platform_dependent, default=default, **by_platform)


def dense(x: jax.Array, kernel: jax.Array, dimension_numbers, precision=None) -> jax.Array:
    """[B, S, I] times [I, O]: nn.Dense's dot_general."""

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        axes = ("WNC", "WIO", "WNC")
        return jax.lax.conv_general_dilated(x, kernel[None], (1,), "VALID", dimension_numbers=axes, precision=precision)

    default = functools.partial(jax.lax.dot_general, dimension_numbers=dimension_numbers, precision=precision)
    return form(cpu=cpu.dense, tpu=convolution, default=default)(x, kernel)


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


def rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return dense(x, kernel, (((2,), (0,)), ((), ())))


def normed_hidden(
    x: jax.Array, scale: jax.Array, shift: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(x, gelu(y W + b)) of the layer norm y [B, S, C] of x: the norm's scale and shift [C], kernel [C, D] and bias [D].

    x is returned for its gradient's sake: what comes back by the residual is added where the norm's own is made.
    """
    return form(tpu=_normed_hidden, default=_plain_normed_hidden)(x, scale, shift, kernel, bias)


def _plain_normed_hidden(x, scale, shift, kernel, bias):
    return x, gelu(_before_gelu(x, scale, shift, kernel, bias))


def _before_gelu(x, scale, shift, kernel, bias):
    return rows(layer_norm(x, scale, shift, kernel.dtype), kernel) + bias[None, None]


_normed_hidden = jax.custom_vjp(_plain_normed_hidden)


def _normed_hidden_forward(x, scale, shift, kernel, bias):
    z = _before_gelu(x, scale, shift, kernel, bias)
    return (x, gelu(z)), (x, z, scale, shift, kernel, bias)


def _normed_hidden_gradients(saved, gradients):
    """r (g - mean(g) - n mean(g n)) with r = 1 / sigma, n = r (x - mean(x)), z = (n s + t) W + b and g = s W dz.

    The sums over a row, which its every element needs, are known before the product that makes them: of C numbers each,
    sum(g) = dz . W^T s and sum(g n) = dz . (z - b - W^T t). So the residual's gradient is complete where that product ends.
    """
    (x, z, scale, shift, kernel, bias), (dx, dhidden) = saved, gradients
    x32, kernel32 = x.astype(jnp.float32), kernel.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    variance = jnp.maximum(0.0, jnp.square(x32).mean(-1, keepdims=True) - jnp.square(mean))
    r = jax.lax.rsqrt(variance + cpu.LAYER_NORM_EPSILON)
    n = (x32 - mean) * r

    (dz,) = jax.vjp(gelu, z)[1](dhidden)
    dz32, share = dz.astype(jnp.float32), 1.0 / scale.size
    of_scale, of_shift = ((each[:, None] * kernel32).sum(0) for each in (scale, shift))
    mean_g = share * (dz32 * of_scale[None, None]).sum(-1, keepdims=True)
    mean_gn = share * (dz32 * (z.astype(jnp.float32) - (of_shift + bias)[None, None])).sum(-1, keepdims=True)
    dbias = dz32.sum((0, 1))
    # Where a product ends, all that is made of it: without the barriers, passes of their own would read it again.
    dz, dbias, mean_g, mean_gn = jax.lax.optimization_barrier((dz, dbias, mean_g, mean_gn))

    y = (n * scale[None, None] + shift[None, None]).astype(kernel.dtype)
    dy, dkernel = jax.vjp(rows, y, kernel)[1](dz)
    dy = dy.astype(jnp.float32)
    dx = (dx + r * (dy * scale[None, None] - mean_g - n * mean_gn)).astype(x.dtype)
    dx, dscale, dshift = jax.lax.optimization_barrier((dx, (dy * n).sum((0, 1)), dy.sum((0, 1))))
    return dx, dscale, dshift, dkernel, dbias.astype(bias.dtype)


_normed_hidden.defvjp(_normed_hidden_forward, _normed_hidden_gradients)


@jax.custom_vjp
def stored_gradient(x: jax.Array) -> jax.Array:
    """x. Its gradient is computed once, where the TPU compiler would compute it again in each product that reads it."""
    return x


stored_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (jax.lax.optimization_barrier(gradient),))


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
