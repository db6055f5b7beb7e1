"""Forms for XLA's CPU compiler. Each is equivalent to the function of the same name in portable.py.

Measured with jax 0.10.2 on two Zen 5 cores, in float32, against models/reference.py.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mixer_jax.models.kernels import portable
from mixer_jax.models.kernels.portable import Channels, Hidden, Kernel, Outputs, TokenHidden, TokenKernel, Tokens


@jax.custom_vjp
def _matmul(x: Float[Array, "*rows inputs"], kernel: Float[Array, "inputs outputs"]) -> Float[Array, "*rows outputs"]:
    """Equivalent to the following JAX code: `x @ kernel`.

    XLA multiplies at the speed of the machine where it contracts rows with columns. The gradient of a kernel, as JAX writes it,
    ends in a transpose, which XLA turns into a matmul at two thirds to an eighth of that speed, and a copy.
    """
    return (_as_matrix(x) @ kernel).reshape(*x.shape[:-1], -1)


def _matmul_backward(saved: tuple, gradient: Float[Array, "*rows outputs"]) -> tuple:
    x, kernel = saved
    matrix, gradient = _as_matrix(x), _as_matrix(gradient)
    wide = kernel.shape[0] <= kernel.shape[1]
    # Transpose the narrower of the two. Without the barrier XLA would undo that.
    dkernel = matrix.T @ gradient if wide else jax.lax.optimization_barrier(gradient.T @ matrix).T
    return (gradient @ kernel.T).reshape(x.shape), dkernel


_matmul.defvjp(lambda x, kernel: (_matmul(x, kernel), (x, kernel)), _matmul_backward)


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Equivalent to the following JAX code: `x * (1 + tanh(u)) / 2` with `u = GELU_SCALE * (x + GELU_CUBIC * x**3)`.

    The backward pass keeps the input alone. As JAX writes it, it keeps three arrays of the size of the MLP, and each is fresh
    memory, which costs more than to compute it. Written with tanh, XLA would keep the tanh.
    """
    u = portable.GELU_SCALE * (x + portable.GELU_CUBIC * x * x * x)
    return x / (1 + jnp.exp(-2 * u))


gelu.defvjp(lambda x: (gelu(x), x), lambda x, gradient: jax.vjp(jax.nn.gelu, x)[1](gradient))


@functools.partial(jax.custom_vjp, nondiff_argnames=("dtype",))
def layer_norm(x: Tokens, scale: Channels, shift: Channels, dtype: DTypeLike) -> Tokens:
    """Equivalent to the following JAX code: `portable.layer_norm(x, scale, shift, dtype)`.

    The gradient as JAX writes it copies the scale to every token. Here all tokens are multiplied with it at once, as a matrix
    with a vector.
    """
    return portable.layer_norm(x, scale, shift, dtype)


def _layer_norm_backward(_: DTypeLike, saved: tuple, gradient: Tokens) -> tuple:
    """With y = (x - mean) r: r (g s - mean(g s) - y mean(g s y)) for each token; sums of g y and of g over all tokens."""
    shape, dtype, scale = saved[0].shape, saved[0].dtype, saved[1]
    x, gradient = (_as_matrix(value).astype(jnp.float32) for value in (saved[0], gradient))
    y = x - x.mean(1, keepdims=True)
    r = jax.lax.rsqrt((y * y).mean(1, keepdims=True) + portable.LAYER_NORM_EPSILON)
    y, share = y * r, scale[:, None] / scale.size
    dx = r * (gradient * scale[None] - gradient @ share - y * ((gradient * y) @ share))
    return dx.reshape(shape).astype(dtype), (gradient * y).sum(0), gradient.sum(0)


layer_norm.defvjp(lambda x, scale, shift, dtype: (layer_norm(x, scale, shift, dtype), (x, scale)), _layer_norm_backward)


def dense(x: Float[Array, "batch tokens inputs"], kernel: Float[Array, "*inputs outputs"], bias: Outputs) -> Hidden:
    """Equivalent to the following JAX code: `x @ kernel.reshape(-1, kernel.shape[-1]) + bias`. See _matmul for the reason."""
    return _matmul(x, kernel.reshape(-1, kernel.shape[-1])) + bias[None, None]


def token_dense(x: Tokens, kernel: TokenKernel, bias: Outputs) -> TokenHidden:
    """Equivalent to the following JAX code: `einsum("sd,bsc->bdc", kernel, x) + bias[:, None]`.

    That code copies the kernel for each image, in all layers before the first matmul. Here all images are one matmul, tokens
    first.
    """
    return _images_first(_tokens_first_dense(x, kernel, bias), x)


def norm_dense_gelu(x: Tokens, scale: Channels, shift: Channels, kernel: Kernel, bias: Outputs) -> tuple[Tokens, Hidden]:
    """Equivalent to portable.norm_dense_gelu, of the forms above."""
    return x, gelu(dense(layer_norm(x, scale, shift, kernel.dtype), kernel, bias))


def norm_token_dense_gelu(
    x: Tokens, scale: Channels, shift: Channels, kernel: TokenKernel, bias: Outputs
) -> tuple[Tokens, TokenHidden]:
    """Equivalent to portable.norm_token_dense_gelu, of the forms above. While tokens come first, XLA computes GELU in place."""
    return x, _images_first(gelu(_tokens_first_dense(layer_norm(x, scale, shift, kernel.dtype), kernel, bias)), x)


def _tokens_first_dense(x: Tokens, kernel: TokenKernel, bias: Outputs) -> Float[Array, "outputs columns"]:
    transposed = jax.lax.optimization_barrier(kernel.T)  # Otherwise XLA contracts the kernel's rows, by slower code.
    return _matmul(transposed, x.swapaxes(0, 1).reshape(x.shape[1], -1)) + bias[:, None]


def _images_first(y: Float[Array, "outputs columns"], x: Tokens) -> TokenHidden:
    return y.reshape(-1, x.shape[0], x.shape[2]).swapaxes(0, 1)


def _as_matrix(x: Float[Array, "*axes channels"]) -> Float[Array, "all_rows channels"]:
    return x.reshape(-1, x.shape[-1])
