"""Forms for the TPU compiler. Each is equivalent to the function of the same name in portable.py.

That compiler's estimates for TPU v3 say what each gains. The speed table of benchmarks/planning compares all of them together
with models/reference.py.
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

    The matmul is a convolution over images with a window of one. For a plain matmul the compiler chooses the layout by whether
    images or tokens leave fewer of 128 lanes idle. With 128 images a core it puts images after tokens, and rearranges everything
    between token and channel mixing, which takes a tenth of the step.
    """
    return _convolution(x, kernel) + bias[None, None]


def _dense_backward(saved: tuple, gradient: Hidden) -> tuple:
    x, kernel, bias = saved
    # The barrier keeps the bias's sum fused into the matmul that makes `gradient`. Otherwise XLA reads it again in another pass.
    gradient, dbias = jax.lax.optimization_barrier((gradient, _sum_tokens(gradient.astype(jnp.float32))))
    dbias = dbias.sum(0).astype(bias.dtype)
    return *jax.vjp(_convolution, x, _gather_again(kernel))[1](gradient), dbias


dense.defvjp(lambda x, kernel, bias: (dense(x, kernel, bias), (x, kernel, bias)), _dense_backward)


@jax.custom_vjp
def norm_dense_gelu(x: Tokens, scale: Channels, shift: Channels, kernel: Kernel, bias: Outputs) -> tuple[Tokens, Hidden]:
    """Equivalent to the following JAX code: `(x, gelu(layer_norm(x, scale, shift) @ kernel + bias))`.

    The gradient of a layer norm needs two sums over each token's channels. As JAX writes it, it waits for the matmul before it,
    and is a pass of its own. Here the sums are taken from what goes into that matmul, and the gradient is complete where it ends.
    """
    return _norm_dense_gelu_forward(x, scale, shift, kernel, bias)[0]


def _norm_dense_gelu_forward(x: Tokens, scale: Channels, shift: Channels, kernel: Kernel, bias: Outputs) -> tuple:
    z = _convolution(portable.layer_norm(x, scale, shift, kernel.dtype), kernel) + bias[None, None]
    return (x, portable.gelu(z)), (x, z, scale, shift, kernel, bias)


def _norm_dense_gelu_backward(saved: tuple, gradients: tuple) -> tuple:
    """With z = (n s + t) W + b and g = s W dz: sum(g) = dz . W^T s and sum(g n) = dz . (z - b - W^T t), for each token."""
    (x, z, scale, shift, kernel, bias), (dresidual, dhidden) = saved, gradients
    kernel = _gather_again(kernel)
    kernel32 = portable.constrain(kernel).astype(jnp.float32)
    n, r = _normalize(x)

    (dz,) = jax.vjp(portable.gelu, z)[1](dhidden)
    dz32, z32 = dz.astype(jnp.float32), z.astype(jnp.float32)
    kernel_scale, kernel_shift = ((value[:, None] * kernel32).sum(0) for value in (scale, shift))
    sum_g = (dz32 * kernel_scale[None, None]).sum(-1)
    sum_gn = (dz32 * (z32 - (kernel_shift + bias)[None, None])).sum(-1)
    # The two barriers keep these sums fused into the matmul epilogue. Otherwise XLA reads the output again in separate passes.
    # The sums are those of each device. Behind a barrier, a sum over all would be sent once for every part of a batch.
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
    """Equivalent to the following JAX code: `(x, gelu(einsum("sd,bsc->bdc", kernel, y) + bias[:, None]))` with
    `y = layer_norm(x, scale, shift)`.

    The norm's gradient is complete where the matmul's ends, as in norm_dense_gelu and for the same reason.
    """
    return _norm_token_dense_gelu_forward(x, scale, shift, kernel, bias)[0]


def _norm_token_dense_gelu_forward(x: Tokens, scale: Channels, shift: Channels, kernel: TokenKernel, bias: Outputs) -> tuple:
    z = portable.token_dense(portable.layer_norm(x, scale, shift, kernel.dtype), kernel, bias)
    return (x, portable.gelu(z)), (x, z, scale, shift, kernel, bias)


def _norm_token_dense_gelu_backward(saved: tuple, gradients: tuple) -> tuple:
    """With y = n s + t, z = W^T y + b and g = s W dz: each image's gradient of W is G = y dz^T, and the sums over the channels of
    a token are sum(g) = W (dz s) and sum(g n) = (W * G) 1 - W (dz t).
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
    dy = jnp.einsum("bsd,bdc->bsc", portable.kernel_of_each_image(kernel, x), dz)
    dx, dscale, dshift = _norm_gradients(dresidual, n, r, scale, dy, sum_g, sum_gn)
    return dx, dscale.sum(0), dshift.sum(0), dkernel.sum(0).astype(kernel.dtype), dbias.sum(0).astype(bias.dtype)


norm_token_dense_gelu.defvjp(_norm_token_dense_gelu_forward, _norm_token_dense_gelu_backward)


@jax.custom_vjp
def store_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Equivalent to the following JAX code: `x`. Stores its gradient once instead of letting XLA recompute it for each reader.

    The gradient of the norm before the head is cheap, and has four readers.
    """
    return x


store_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (jax.lax.optimization_barrier(gradient),))


def _convolution(x: Float[Array, "batch tokens inputs"], kernel: Float[Array, "*inputs outputs"]) -> Hidden:
    # Every device has the whole kernel. XLA would otherwise split the convolution as its kernel is split, not as images are. The
    # constraint precedes the reshape. Otherwise the gradient of a patch projection is summed over devices in each of its parts.
    kernel = portable.constrain(kernel).reshape(1, -1, kernel.shape[-1])
    return jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("WNC", "WIO", "WNC"))


def _gather_again(kernel: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the kernel for the backward pass, gathered again. Otherwise what the forward pass gathered is kept until then."""
    return jax.lax.optimization_barrier(kernel)


def _sum_tokens(x: Float[Array, "batch tokens *dims"]) -> Float[Array, "devices *dims"]:
    """Sum over the images of each device and their tokens."""
    devices = max(1, jax.sharding.get_abstract_mesh().size)  # The size is 0 where there is no mesh.
    return x.reshape(devices, -1, *x.shape[1:]).sum((1, 2))


def _normalize(x: Tokens) -> tuple[Tokens, TokenScalars]:
    """Return n = r (x - mean(x)) and r = 1 / sigma of each token, in float32."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    variance = jnp.maximum(0.0, jnp.square(x32).mean(-1, keepdims=True) - jnp.square(mean))
    r = jax.lax.rsqrt(variance + portable.LAYER_NORM_EPSILON)
    return (x32 - mean) * r, r


def _norm_gradients(
    dresidual: Tokens, n: Tokens, r: TokenScalars, scale: Channels, dy: Tokens, sum_g: TokenSums, sum_gn: TokenSums
) -> tuple:
    """Return dresidual + r (g - mean(g) - n mean(g n)) with g = s dy and its sums for each token; ds and dt of each device."""
    dy, share = dy.astype(jnp.float32), 1.0 / scale.size
    dx = dresidual + r * (dy * scale[None, None] - (share * sum_g)[..., None] - n * (share * sum_gn)[..., None])
    return dx.astype(dresidual.dtype), _sum_tokens(dy * n), _sum_tokens(dy)
