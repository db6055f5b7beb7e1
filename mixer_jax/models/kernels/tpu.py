"""What products.py has, as the TPU compiler runs it fastest: the same functions, for TPUs alone.

Told by that compiler's estimates for TPU v3; `python -m mixer_jax plan --table speed` prints them against the paper's listing.

  dense          a product of rows is a convolution over images, with a window of one. Of a plain product the compiler chooses the
                 layout by whether images or tokens leave fewer of 128 lanes idle. With 128 images a core it puts images after
                 tokens, and between token and channel mixing everything is rearranged: a tenth of the step.
  normed_rows, normed_columns  the gradient of a layer norm needs two sums over each row, and so waits for the product before it,
                 in a pass of its own. Here the sums are taken from what goes into that product, and the gradient is complete
                 where it ends.
  add_bias       its gradient is a sum of what such a product ends in, and is taken there, not in another pass.
  stored_gradient  the gradient of the norm before the head is cheap, so the compiler computes it again for each of four readers.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mixer_jax.models.kernels.cpu import LAYER_NORM_EPSILON


def _whole(kernel: jax.Array) -> jax.Array:
    """The kernel on every device of the mesh: XLA would divide a convolution as its kernel is divided, not as images are."""
    return _placed(kernel)


def _placed(x: jax.Array, *axes: tuple[str, ...]) -> jax.Array:
    """x, its first dimensions along these axes of the mesh, if there is one."""
    return x if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def _convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    axes = ("WNC", "WIO", "WNC")
    kernel = _whole(kernel).reshape(1, -1, kernel.shape[-1])  # whole first, or the gradient of a stem's is summed in each part
    return jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=axes)


def _sums(x: jax.Array) -> jax.Array:
    """x [B, S, D] summed over the images of each device and their tokens -> [devices, D]."""
    devices = max(1, jax.sharding.get_abstract_mesh().size)  # 0 where there is no mesh
    return x.reshape(devices, -1, *x.shape[1:]).sum((1, 2))


def _normalized(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """n = r (x - mean(x)) and r = 1 / sigma [B, S, 1] of each row of x [B, S, C], float32."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    variance = jnp.maximum(0.0, jnp.square(x32).mean(-1, keepdims=True) - jnp.square(mean))
    r = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return (x32 - mean) * r, r


def _norm_gradients(dresidual, n, r, scale, dy, sum_g, sum_gn) -> tuple[jax.Array, jax.Array, jax.Array]:
    """dresidual + r (g - mean(g) - n mean(g n)) with g = s dy, the sums over each row given; of each device, ds and dt."""
    dy, share = dy.astype(jnp.float32), 1.0 / scale.size
    dx = dresidual + r * (dy * scale[None, None] - (share * sum_g)[..., None] - n * (share * sum_gn)[..., None])
    return dx.astype(dresidual.dtype), _sums(dy * n), _sums(dy)


def _again(kernel: jax.Array) -> jax.Array:
    """The kernel for the backward pass, to be gathered again: otherwise what the forward pass gathered is kept until then."""
    return jax.lax.optimization_barrier(kernel)


def _dense_gradients(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return jax.vjp(_convolution, x, _again(kernel))[1](gradient)


dense = jax.custom_vjp(_convolution)
dense.defvjp(lambda x, kernel: (_convolution(x, kernel), (x, kernel)), _dense_gradients)


def columns(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """All but CPUs have it."""
    return jnp.einsum("bsd,bsc->bdc", _for_each_image(kernel, x), x) + bias[None, :, None]


def _for_each_image(kernel: jax.Array, x: jax.Array) -> jax.Array:
    """The kernel [B, S, D], of each image where that image is: otherwise images go where the kernel's part is."""
    kernels = jnp.broadcast_to(kernel, (x.shape[0], *kernel.shape))
    return _placed(kernels, jax.sharding.get_abstract_mesh().axis_names)


@jax.custom_vjp
def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    return y + bias[None, None]


def _add_bias_gradients(bias: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    gradient, dbias = jax.lax.optimization_barrier((gradient, _sums(gradient.astype(jnp.float32))))
    return gradient, dbias.sum(0).astype(bias.dtype)


add_bias.defvjp(lambda y, bias: (y + bias[None, None], bias), _add_bias_gradients)


def _normed(product: Callable, gradients: Callable) -> Callable:
    """x and the gelu of product(norm(x), kernel, bias), with `gradients` of all that from what goes into the gelu."""

    def hidden(norm: Callable, x, scale, shift, *params) -> jax.Array:
        return product(norm(x, scale, shift), *params)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
    def normed(
        norm: Callable, gelu: Callable, x: jax.Array, scale: jax.Array, shift: jax.Array, kernel: jax.Array, bias: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return x, gelu(hidden(norm, x, scale, shift, kernel, bias))

    def forward(norm: Callable, gelu: Callable, x, *params):
        z = hidden(norm, x, *params)
        return (x, gelu(z)), (x, z, *params)

    normed.defvjp(forward, gradients)
    return normed


def _rows(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return dense(x, kernel) + bias[None, None]


def _normed_rows_gradients(norm: Callable, gelu: Callable, saved: tuple, gradients: tuple) -> tuple:
    """With z = (n s + t) W + b and g = s W dz: sum(g) = dz . W^T s and sum(g n) = dz . (z - b - W^T t), of each row."""
    (x, z, scale, shift, kernel, bias), (dresidual, dhidden) = saved, gradients
    kernel = _again(kernel)
    kernel32 = _whole(kernel).astype(jnp.float32)
    n, r = _normalized(x)

    (dz,) = jax.vjp(gelu, z)[1](dhidden)
    dz32, z32 = dz.astype(jnp.float32), z.astype(jnp.float32)
    of_scale, of_shift = ((each[:, None] * kernel32).sum(0) for each in (scale, shift))
    sum_g = (dz32 * of_scale[None, None]).sum(-1)
    sum_gn = (dz32 * (z32 - (of_shift + bias)[None, None])).sum(-1)
    # What is made where a product ends is made there: without the two barriers, other passes would read it again for some of it.
    # Sums are those of each device: behind a barrier, a sum over all would be sent once for every part of a batch.
    dz, dbias, sum_g, sum_gn = jax.lax.optimization_barrier((dz, _sums(dz32), sum_g, sum_gn))

    y = (n * scale[None, None] + shift[None, None]).astype(kernel.dtype)
    dy, dkernel = jax.vjp(_convolution, y, kernel)[1](dz)
    dx, dscale, dshift = _norm_gradients(dresidual, n, r, scale, dy, sum_g, sum_gn)
    dx, dscale, dshift = jax.lax.optimization_barrier((dx, dscale, dshift))
    return dx, dscale.sum(0), dshift.sum(0), dkernel, dbias.sum(0).astype(bias.dtype)


normed_rows = _normed(_rows, _normed_rows_gradients)


def _normed_columns_gradients(norm: Callable, gelu: Callable, saved: tuple, gradients: tuple) -> tuple:
    """With y = n s + t, z = W^T y + b and g = s W dz: each image's gradient of W is G = y dz^T, and the sums over the channels of
    a token are sum(g) = W (dz s) and sum(g n) = (W * G) 1 - W (dz t).
    """
    (x, z, scale, shift, kernel, bias), (dresidual, dhidden) = saved, gradients
    kernel = _again(kernel)
    kernel32 = _whole(kernel).astype(jnp.float32)
    n, r = _normalized(x)

    (dz,) = jax.vjp(gelu, z)[1](dhidden)
    dz32 = dz.astype(jnp.float32)
    of_scale, of_shift = ((dz32 * each[None, None]).sum(-1) for each in (scale, shift))  # [B, D]
    dz, dbias, of_scale, of_shift = jax.lax.optimization_barrier((dz, dz32.sum(-1), of_scale, of_shift))

    y = (n * scale[None, None] + shift[None, None]).astype(kernel.dtype)
    each_dkernel = jnp.einsum("bsc,bdc->bsd", y, dz, preferred_element_type=jnp.float32)
    sum_g, sum_t = (jnp.einsum("bd,sd->bs", each, kernel32, precision="highest") for each in (of_scale, of_shift))
    sum_gn = (each_dkernel * kernel32[None]).sum(-1) - sum_t
    dkernel = _sums(each_dkernel[:, None])
    dkernel, sum_g, sum_gn = jax.lax.optimization_barrier((dkernel, sum_g, sum_gn))
    dy = jnp.einsum("bsd,bdc->bsc", _for_each_image(kernel, x), dz)
    dx, dscale, dshift = _norm_gradients(dresidual, n, r, scale, dy, sum_g, sum_gn)
    return dx, dscale.sum(0), dshift.sum(0), dkernel.sum(0).astype(kernel.dtype), dbias.sum(0).astype(bias.dtype)


normed_columns = _normed(columns, _normed_columns_gradients)


@jax.custom_vjp
def stored_gradient(x: jax.Array) -> jax.Array:
    return x


stored_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (jax.lax.optimization_barrier(gradient),))
