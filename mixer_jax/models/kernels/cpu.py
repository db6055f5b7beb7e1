"""What products.py has, as XLA's CPU compiler runs it fastest: the same functions, for CPUs alone.

Measured with jax 0.10.2 on two Zen 5 cores, in float32, against models/reference.py, which has none of this:
  dense    XLA multiplies at the speed of the machine where rows are contracted with columns, but the gradient of a kernel, as JAX
           writes it, ends in a transpose that XLA turns into a product at two thirds to an eighth of that speed, and a copy.
  gelu     its gradient as JAX writes it keeps three arrays of the size of the MLP; each is fresh memory, which costs more than to
           compute it. Here the backward pass has the input alone.
  columns  the kernel is copied for each image, in all layers before the first product. Here all images are one product, tokens
           first. Its activation comes before images are first again: there XLA computes it in place.
  layer_norm  its gradient as JAX writes it copies the scale to every token; here rows are multiplied with it, as a matrix with a
           vector.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

LAYER_NORM_EPSILON = 1e-6  # nn.LayerNorm's


@jax.custom_vjp
def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return (_rows(x) @ kernel).reshape(*x.shape[:-1], -1)


def _dense_gradients(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows, gradient = _rows(x), _rows(gradient)
    if kernel.shape[0] <= kernel.shape[1]:
        kernel_gradient = rows.T @ gradient
    else:  # the narrower of the two is the one to transpose; without the barrier XLA would undo that
        kernel_gradient = jax.lax.optimization_barrier(gradient.T @ rows).T
    return (gradient @ kernel.T).reshape(x.shape), kernel_gradient


dense.defvjp(lambda x, kernel: (dense(x, kernel), (x, kernel)), _dense_gradients)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(2 u) = x (1 + tanh(u)) / 2. Not written with tanh, or XLA would keep the tanh for the backward pass."""
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return x / (1 + jnp.exp(-2 * u))


gelu.defvjp(lambda x: (gelu(x), x), lambda x, gradient: jax.vjp(jax.nn.gelu, x)[1](gradient))


def columns(x: jax.Array, kernel: jax.Array, bias: jax.Array, activation: Callable) -> jax.Array:
    batch, tokens, channels = x.shape
    transposed = jax.lax.optimization_barrier(kernel.T)  # or XLA contracts the kernel's rows, by slower code
    y = dense(transposed, x.swapaxes(0, 1).reshape(tokens, -1)) + bias[:, None]
    return activation(y).reshape(-1, batch, channels).swapaxes(0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer_norm(norm: Callable, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """`norm`, which is nn.LayerNorm as a function of these, with a gradient of our own."""
    return norm(x, scale, bias)


def _layer_norm_gradients(norm: Callable, saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, ...]:
    """With y = (x - mean) r: r (g s - mean(g s) - y mean(g s y)), of each row; sums of g y and g over all rows."""
    shape, dtype, scale = saved[0].shape, saved[0].dtype, saved[1]
    x, gradient = (_rows(each).astype(jnp.float32) for each in (saved[0], gradient))
    y = x - x.mean(1, keepdims=True)
    r = jax.lax.rsqrt((y * y).mean(1, keepdims=True) + LAYER_NORM_EPSILON)
    y, share = y * r, scale[:, None] / scale.size
    dx = r * (gradient * scale[None] - gradient @ share - y * ((gradient * y) @ share))
    return dx.reshape(shape).astype(dtype), (gradient * y).sum(0), gradient.sum(0)


layer_norm.defvjp(lambda norm, x, scale, bias: (norm(x, scale, bias), (x, scale)), _layer_norm_gradients)


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])
