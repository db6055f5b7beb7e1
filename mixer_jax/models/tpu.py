"""What products.py has, as the TPU compiler runs it fastest: the same functions, for TPUs alone.

Told by that compiler's estimates for TPU v3; `python -m mixer_jax plan --table speed` prints them against the paper's listing.

  dense          a product of rows is a convolution over images, with a window of one. Of a plain product the compiler chooses the
                 layout by whether images or tokens leave fewer of 128 lanes idle. With 128 images a core it puts images after
                 tokens, and between token and channel mixing everything is rearranged: a tenth of the step.
  normed_hidden  the gradient of a layer norm needs two sums over each row, and so waits for the product before it, in a pass of
                 its own. Here the sums are taken from what goes into that product, and the gradient is complete where it ends.
  stored_gradient  the gradient of the norm before the head is cheap, so the compiler computes it again for each of four readers.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mixer_jax.models.cpu import LAYER_NORM_EPSILON


def _whole(kernel: jax.Array) -> jax.Array:
    """The kernel on every device of the mesh: XLA would divide a convolution as its kernel is divided, not as images are."""
    return kernel if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(kernel, PartitionSpec())


def _convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    axes = ("WNC", "WIO", "WNC")
    return jax.lax.conv_general_dilated(x, _whole(kernel)[None], (1,), "VALID", dimension_numbers=axes)


def _sums(x: jax.Array) -> jax.Array:
    """x [B, S, D] summed over the images of each device and their tokens -> [devices, D]."""
    devices = max(1, jax.sharding.get_abstract_mesh().size)  # 0 where there is no mesh
    return x.reshape(devices, -1, *x.shape[1:]).sum((1, 2))


def _again(kernel: jax.Array) -> jax.Array:
    """The kernel for the backward pass, to be gathered again: otherwise what the forward pass gathered is kept until then."""
    return jax.lax.optimization_barrier(kernel)


def _dense_gradients(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return jax.vjp(_convolution, x, _again(kernel))[1](gradient)


dense = jax.custom_vjp(_convolution)
dense.defvjp(lambda x, kernel: (_convolution(x, kernel), (x, kernel)), _dense_gradients)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def normed_hidden(
    norm: Callable, gelu: Callable, x: jax.Array, scale: jax.Array, shift: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return x, gelu(_before_gelu(norm, x, scale, shift, kernel, bias))


def _before_gelu(norm: Callable, x, scale, shift, kernel, bias) -> jax.Array:
    return dense(norm(x, scale, shift), kernel) + bias[None, None]


def _normed_hidden(norm: Callable, gelu: Callable, x, *params):
    z = _before_gelu(norm, x, *params)
    return (x, gelu(z)), (x, z, *params)


def _normed_hidden_gradients(norm: Callable, gelu: Callable, saved: tuple, gradients: tuple) -> tuple:
    """Of the norm: r (g - mean(g) - n mean(g n)), with r = 1 / sigma, n = r (x - mean(x)), z = (n s + t) W + b and g = s W dz.

    Over the C numbers of a row, sum(g) = dz . W^T s and sum(g n) = dz . (z - b - W^T t).
    """
    (x, z, scale, shift, kernel, bias), (dresidual, dhidden) = saved, gradients
    kernel = _again(kernel)
    x32, kernel32 = x.astype(jnp.float32), _whole(kernel).astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    variance = jnp.maximum(0.0, jnp.square(x32).mean(-1, keepdims=True) - jnp.square(mean))
    r = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    n = (x32 - mean) * r

    (dz,) = jax.vjp(gelu, z)[1](dhidden)
    dz32, z32, share = dz.astype(jnp.float32), z.astype(jnp.float32), 1.0 / scale.size
    of_scale, of_shift = ((each[:, None] * kernel32).sum(0) for each in (scale, shift))
    mean_g = share * (dz32 * of_scale[None, None]).sum(-1, keepdims=True)
    mean_gn = share * (dz32 * (z32 - (of_shift + bias)[None, None])).sum(-1, keepdims=True)
    # What is made where a product ends is made there: without the two barriers, other passes would read it again for some of it.
    # Sums are those of each device: behind a barrier, a sum over all would be sent once for every part of a batch.
    dz, dbias, mean_g, mean_gn = jax.lax.optimization_barrier((dz, _sums(dz32), mean_g, mean_gn))

    y = (n * scale[None, None] + shift[None, None]).astype(kernel.dtype)
    dy, dkernel = jax.vjp(_convolution, y, kernel)[1](dz)
    dy = dy.astype(jnp.float32)
    dx = (dresidual + r * (dy * scale[None, None] - mean_g - n * mean_gn)).astype(x.dtype)
    dx, dscale, dshift = jax.lax.optimization_barrier((dx, _sums(dy * n), _sums(dy)))
    return dx, dscale.sum(0), dshift.sum(0), dkernel, dbias.sum(0).astype(bias.dtype)


normed_hidden.defvjp(_normed_hidden, _normed_hidden_gradients)


@jax.custom_vjp
def stored_gradient(x: jax.Array) -> jax.Array:
    return x


stored_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (jax.lax.optimization_barrier(gradient),))
