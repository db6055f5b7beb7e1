"""Implementations for XLA's TPU compiler. Each is equivalent to the function of the same name in portable.py.

Each of them is faster by this compiler's estimate for TPU v3: none was timed on a TPU. `python -m benchmarks.planning speed`
estimates how much faster all of them together are than the reference model (models/reference.py).

In the formulas of gradients, W and b are the kernel and the bias of the dense layer, s and t the scale and the shift of the layer
norm, n = r (x - mean(x)) the normalized input with r = 1 / sigma, z the output of the dense layer, and dz the gradient of z. Sums
and means are over the channels of one token.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mixer_jax.models.kernels import portable
from mixer_jax.models.kernels.portable import Channels, Hidden, Kernel, Outputs, TokenHidden, TokenKernel, Tokens

TokenScalars = Float[Array, "batch tokens 1"]
TokenSums = Float[Array, "batch tokens"]


@jax.custom_vjp
def dense(x: Float[Array, "batch tokens inputs"], kernel: Float[Array, "*inputs outputs"], bias: Outputs) -> Hidden:
    """Equivalent to the following JAX code: `x @ kernel.reshape(-1, kernel.shape[-1]) + bias`.

    The matmul is written as a convolution over the images with a window of one image. For a plain matmul XLA chooses the order of
    the axes by whether images or tokens leave fewer of 128 lanes idle. With 128 images per core it puts images after tokens, and
    then rearranges all activations between token mixing and channel mixing, which takes a tenth of the step.
    """
    return _convolution(x, kernel) + bias[None, None]


def _dense_backward(saved: tuple, gradient: Hidden) -> tuple:
    x, kernel, bias = saved
    # The barrier keeps the sum for the bias fused into the matmul that computes `gradient`. Otherwise XLA reads `gradient` again
    # in another pass.
    gradient, dbias = jax.lax.optimization_barrier((gradient, _sum_tokens(gradient.astype(jnp.float32))))
    dbias = dbias.sum(0).astype(bias.dtype)
    return *jax.vjp(_convolution, x, _gather_again(kernel))[1](gradient), dbias


dense.defvjp(lambda x, kernel, bias: (dense(x, kernel, bias), (x, kernel, bias)), _dense_backward)


@jax.custom_vjp
def norm_dense_gelu(x: Tokens, scale: Channels, shift: Channels, kernel: Kernel, bias: Outputs) -> tuple[Tokens, Hidden]:
    """Equivalent to the following JAX code: `(x, gelu(layer_norm(x, scale, shift) @ kernel + bias))`.

    The gradient of a layer norm needs two sums over the channels of each token, sum(g) and sum(g n), where g is the gradient of
    n. JAX's own derivative takes them from the output of the matmul that precedes it in the backward pass, and so needs a
    separate pass over that output. Here they are computed from the inputs of that matmul, so that XLA can fuse the rest of the
    norm's gradient into it.
    """
    return _norm_dense_gelu_forward(x, scale, shift, kernel, bias)[0]


def _norm_dense_gelu_forward(x: Tokens, scale: Channels, shift: Channels, kernel: Kernel, bias: Outputs) -> tuple:
    z = _convolution(portable.layer_norm(x, scale, shift, kernel.dtype), kernel) + bias[None, None]
    return (x, portable.gelu(z)), (x, z, scale, shift, kernel, bias)


def _norm_dense_gelu_backward(saved: tuple, gradients: tuple) -> tuple:
    """Return the gradients of x, scale, shift, kernel and bias.

    With z = (n s + t) W + b, the gradient of n is g = s W dz. Hence sum(g) = dz . (W^T s) and sum(g n) = dz . (z - b - W^T t).
    """
    (x, z, scale, shift, kernel, bias), (dresidual, dhidden) = saved, gradients
    kernel = _gather_again(kernel)
    kernel32 = portable.constrain(kernel).astype(jnp.float32)
    n, r = _normalize(x)

    (dz,) = jax.vjp(portable.gelu, z)[1](dhidden)
    dz32, z32 = dz.astype(jnp.float32), z.astype(jnp.float32)
    kernel_scale, kernel_shift = ((value[:, None] * kernel32).sum(0) for value in (scale, shift))
    sum_g = (dz32 * kernel_scale[None, None]).sum(-1)
    sum_gn = (dz32 * (z32 - (kernel_shift + bias)[None, None])).sum(-1)
    # Each of the two barriers keeps the sums that pass through it fused into the matmul before it. Otherwise XLA reads the output
    # of that matmul again in separate passes. The sums are over the tokens of each device. A sum over all devices would be
    # communicated at the barrier, and therefore once for each part of an accumulated batch.
    dz, dbias, sum_g, sum_gn = jax.lax.optimization_barrier((dz, _sum_tokens(dz32), sum_g, sum_gn))

    y = (n * scale[None, None] + shift[None, None]).astype(kernel.dtype)
    dy, dkernel = jax.vjp(_convolution, y, kernel)[1](dz)
    dx, dscale, dshift = _norm_gradients(dresidual, n, r, scale, dy, sum_g, sum_gn)
    dx, dscale, dshift = jax.lax.optimization_barrier((dx, dscale, dshift))
    return dx, dscale.sum(0), dshift.sum(0), dkernel, dbias.sum(0).astype(bias.dtype)


norm_dense_gelu.defvjp(_norm_dense_gelu_forward, _norm_dense_gelu_backward)


@jax.custom_vjp
def norm_token_dense_gelu(
    x: Tokens, scale: Channels, shift: Channels, kernel: TokenKernel, bias: Outputs
) -> tuple[Tokens, TokenHidden]:
    """Equivalent to the following JAX code, with `y = layer_norm(x, scale, shift)`.

        (x, gelu(einsum("sd,bsc->bdc", kernel, y) + bias[:, None]))

    As in norm_dense_gelu, the two sums that the norm's gradient needs are computed without the output of the matmul that precedes
    it in the backward pass, so that XLA can fuse the rest of the norm's gradient into that matmul. The sums follow from the
    gradient of the kernel, computed for each image.
    """
    return _norm_token_dense_gelu_forward(x, scale, shift, kernel, bias)[0]


def _norm_token_dense_gelu_forward(x: Tokens, scale: Channels, shift: Channels, kernel: TokenKernel, bias: Outputs) -> tuple:
    z = portable.token_dense(portable.layer_norm(x, scale, shift, kernel.dtype), kernel, bias)
    return (x, portable.gelu(z)), (x, z, scale, shift, kernel, bias)


def _norm_token_dense_gelu_backward(saved: tuple, gradients: tuple) -> tuple:
    """Return the gradients of x, scale, shift, kernel and bias.

    With y = n s + t and z = W^T y + b, the gradient of n is g = s W dz, and the gradient of W from one image is G = y dz^T. The
    two sums for all tokens of the image are sum(g) = W (dz s) and sum(g n) = (W * G) 1 - W (dz t). Here 1 is a vector of ones and
    * is the product of elements.
    """
    (x, z, scale, shift, kernel, bias), (dresidual, dhidden) = saved, gradients
    kernel = _gather_again(kernel)
    kernel32 = portable.constrain(kernel).astype(jnp.float32)
    n, r = _normalize(x)

    (dz,) = jax.vjp(portable.gelu, z)[1](dhidden)
    dz32 = dz.astype(jnp.float32)
    dz_scale, dz_shift = ((dz32 * value[None, None]).sum(-1) for value in (scale, shift))  # [B, D]
    dz, dbias, dz_scale, dz_shift = jax.lax.optimization_barrier((dz, dz32.sum(-1), dz_scale, dz_shift))

    y = (n * scale[None, None] + shift[None, None]).astype(kernel.dtype)
    image_dkernels = jnp.einsum("bsc,bdc->bsd", y, dz, preferred_element_type=jnp.float32)
    sum_g, sum_t = (jnp.einsum("bd,sd->bs", value, kernel32, precision="highest") for value in (dz_scale, dz_shift))
    sum_gn = (image_dkernels * kernel32[None]).sum(-1) - sum_t
    dkernel = _sum_tokens(image_dkernels[:, None])
    dkernel, sum_g, sum_gn = jax.lax.optimization_barrier((dkernel, sum_g, sum_gn))
    dy = jnp.einsum("bsd,bdc->bsc", portable.kernel_per_image(kernel, x), dz)
    dx, dscale, dshift = _norm_gradients(dresidual, n, r, scale, dy, sum_g, sum_gn)
    return dx, dscale.sum(0), dshift.sum(0), dkernel.sum(0).astype(kernel.dtype), dbias.sum(0).astype(bias.dtype)


norm_token_dense_gelu.defvjp(_norm_token_dense_gelu_forward, _norm_token_dense_gelu_backward)


@jax.custom_vjp
def store_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Equivalent to the following JAX code: `x`.

    The gradient of the norm before the head is cheap to compute and is used four times, so XLA would compute it four times. This
    function makes XLA compute it once and store it.
    """
    return x


store_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (jax.lax.optimization_barrier(gradient),))


def _convolution(x: Float[Array, "batch tokens inputs"], kernel: Float[Array, "*inputs outputs"]) -> Hidden:
    """Return the matmul of x and the kernel, as a convolution over the images with a window of one image."""
    # Every device must have the whole kernel. Otherwise XLA splits the convolution over devices as the kernel is split, and not
    # as the images are. The constraint is put before the reshape. Otherwise the gradient of a patch projection's kernel is summed
    # over devices once for each part of an accumulated batch.
    kernel = portable.constrain(kernel).reshape(1, -1, kernel.shape[-1])
    return jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("WNC", "WIO", "WNC"))


def _gather_again(kernel: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the kernel, such that the backward pass gathers it again from all devices.

    Otherwise the kernel that was gathered for the forward pass is kept in memory until then.
    """
    return jax.lax.optimization_barrier(kernel)


def _sum_tokens(x: Float[Array, "batch tokens *dims"]) -> Float[Array, "devices *dims"]:
    """Return the sum over all tokens of all images of each device: [B, S, ...] -> [devices, ...]."""
    devices = max(1, jax.sharding.get_abstract_mesh().size)  # The size is 0 where no mesh is in use.
    return x.reshape(devices, -1, *x.shape[1:]).sum((1, 2))


def _normalize(x: Tokens) -> tuple[Tokens, TokenScalars]:
    """Return n = r (x - mean(x)) [B, S, C] and r = 1 / sigma [B, S, 1], in float32."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    variance = jnp.maximum(0.0, jnp.square(x32).mean(-1, keepdims=True) - jnp.square(mean))
    r = jax.lax.rsqrt(variance + portable.LAYER_NORM_EPSILON)
    return (x32 - mean) * r, r


def _norm_gradients(
    dresidual: Tokens, n: Tokens, r: TokenScalars, scale: Channels, dy: Tokens, sum_g: TokenSums, sum_gn: TokenSums
) -> tuple:
    """Return the gradients of x, scale and shift. Those of scale and shift are sums over the tokens of each device.

    The gradient of x is dresidual + r (g - mean(g) - n mean(g n)) with g = s dy, of which the caller gives sum(g) and sum(g n).
    """
    dy, per_channel = dy.astype(jnp.float32), 1.0 / scale.size
    dx = dresidual + r * (dy * scale[None, None] - (per_channel * sum_g)[..., None] - n * (per_channel * sum_gn)[..., None])
    return dx.astype(dresidual.dtype), _sum_tokens(dy * n), _sum_tokens(dy)
