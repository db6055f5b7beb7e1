"""Implementations for XLA's CPU compiler. Each is equivalent to the function of the same name in portable.py.

Their speed was measured with jax 0.10.2 in float32 on two Zen 5 cores, against the reference model (models/reference.py).
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

    XLA:CPU runs this matmul at the full speed of the machine. In JAX's own derivative, the gradient of the kernel is a matmul
    that ends in a transpose. XLA turns it into a matmul at two thirds to one eighth of that speed and a copy. The backward pass
    below has neither.
    """
    return (_as_matrix(x) @ kernel).reshape(*x.shape[:-1], -1)


def _matmul_backward(saved: tuple, gradient: Float[Array, "*rows outputs"]) -> tuple:
    x, kernel = saved
    matrix, gradient = _as_matrix(x), _as_matrix(gradient)
    more_outputs = kernel.shape[0] <= kernel.shape[1]
    # Transpose the operand with fewer columns. The barrier keeps XLA from replacing the second expression by the first.
    dkernel = matrix.T @ gradient if more_outputs else jax.lax.optimization_barrier(gradient.T @ matrix).T
    return (gradient @ kernel.T).reshape(x.shape), dkernel


_matmul.defvjp(lambda x, kernel: (_matmul(x, kernel), (x, kernel)), _matmul_backward)


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Equivalent to the following JAX code: `x * (1 + tanh(u)) / 2` with `u = GELU_SCALE * (x + GELU_CUBIC * x**3)`.

    Only the input is stored for the backward pass. With JAX's own derivative, three arrays of the size of the MLP are stored.
    Each is newly allocated memory, and writing to it takes longer than computing the array again. The code here has an exp and no
    tanh, because the backward pass has a tanh, and XLA would compute a shared tanh once and store it.
    """
    u = portable.GELU_SCALE * (x + portable.GELU_CUBIC * x * x * x)
    return x / (1 + jnp.exp(-2 * u))


gelu.defvjp(lambda x: (gelu(x), x), lambda x, gradient: jax.vjp(jax.nn.gelu, x)[1](gradient))


@functools.partial(jax.custom_vjp, nondiff_argnames=("dtype",))
def layer_norm(x: Tokens, scale: Channels, shift: Channels, dtype: DTypeLike) -> Tokens:
    """Equivalent to the following JAX code: `portable.layer_norm(x, scale, shift, dtype)`.

    JAX's own derivative copies the scale to each token. The backward pass below multiplies the matrix of all tokens by the scale
    as a vector. A step of the small model that `make demo` trains took 4 % less time with it.
    """
    return portable.layer_norm(x, scale, shift, dtype)


def _layer_norm_backward(_: DTypeLike, saved: tuple, gradient: Tokens) -> tuple:
    """Return the gradients of x, scale and shift.

    Let g be the gradient of the output, s the scale, r = 1 / sqrt(variance + epsilon) and y = (x - mean) r. Then the gradients
    are r (g s - mean(g s) - y mean(g s y)) for each token, and the sums of g y and of g over all tokens.
    """
    shape, dtype, scale = saved[0].shape, saved[0].dtype, saved[1]
    x, gradient = (_as_matrix(value).astype(jnp.float32) for value in (saved[0], gradient))
    y = x - x.mean(1, keepdims=True)
    r = jax.lax.rsqrt((y * y).mean(1, keepdims=True) + portable.LAYER_NORM_EPSILON)
    y, mean_weights = y * r, scale[:, None] / scale.size  # With v of [tokens, C], v @ mean_weights is mean(v s) for each token.
    dx = r * (gradient * scale[None] - gradient @ mean_weights - y * ((gradient * y) @ mean_weights))
    return dx.reshape(shape).astype(dtype), (gradient * y).sum(0), gradient.sum(0)


layer_norm.defvjp(lambda x, scale, shift, dtype: (layer_norm(x, scale, shift, dtype), (x, scale)), _layer_norm_backward)


def dense(x: Float[Array, "batch tokens inputs"], kernel: Float[Array, "*inputs outputs"], bias: Outputs) -> Hidden:
    """Equivalent to the following JAX code: `x @ kernel.reshape(-1, kernel.shape[-1]) + bias`.

    It is faster because of the backward pass of `_matmul`, whose docstring has the figures.
    """
    return _matmul(x, kernel.reshape(-1, kernel.shape[-1])) + bias[None, None]


def token_dense(x: Tokens, kernel: TokenKernel, bias: Outputs) -> TokenHidden:
    """Equivalent to the following JAX code: `einsum("sd,bsc->bdc", kernel, x) + bias[:, None]`.

    For that code XLA copies the kernel once per image, and does so for all layers before the first matmul. Here one matmul
    computes all images. Its operand is x with tokens as the first axis.
    """
    return _to_images_first(_tokens_first_dense(x, kernel, bias), x)


def norm_dense_gelu(x: Tokens, scale: Channels, shift: Channels, kernel: Kernel, bias: Outputs) -> tuple[Tokens, Hidden]:
    """Equivalent to the following JAX code: `(x, gelu(layer_norm(x, scale, shift) @ kernel + bias))`.

    It consists of the operations above.
    """
    return x, gelu(dense(layer_norm(x, scale, shift, kernel.dtype), kernel, bias))


def norm_token_dense_gelu(
    x: Tokens, scale: Channels, shift: Channels, kernel: TokenKernel, bias: Outputs
) -> tuple[Tokens, TokenHidden]:
    """Equivalent to the following JAX code, with `y = layer_norm(x, scale, shift)`.

        (x, gelu(einsum("sd,bsc->bdc", kernel, y) + bias[:, None]))

    It consists of the operations above. GELU is computed before the images become the first axis again, because XLA then computes
    it in place.
    """
    return x, _to_images_first(gelu(_tokens_first_dense(layer_norm(x, scale, shift, kernel.dtype), kernel, bias)), x)


def _tokens_first_dense(x: Tokens, kernel: TokenKernel, bias: Outputs) -> Float[Array, "outputs columns"]:
    """Return W^T x + b as one matrix [D, B C], whose columns are the channels of all images."""
    # Without the barrier XLA contracts the first axis of the kernel, with slower code.
    transposed = jax.lax.optimization_barrier(kernel.T)
    return _matmul(transposed, x.swapaxes(0, 1).reshape(x.shape[1], -1)) + bias[:, None]


def _to_images_first(y: Float[Array, "outputs columns"], x: Tokens) -> TokenHidden:
    """Return the array that the columns of all images make: [D, B C] -> [B, D, C]."""
    return y.reshape(-1, x.shape[0], x.shape[2]).swapaxes(0, 1)


def _as_matrix(x: Float[Array, "*axes channels"]) -> Float[Array, "all_rows channels"]:
    """Return x with all axes but the last joined to one."""
    return x.reshape(-1, x.shape[-1])
