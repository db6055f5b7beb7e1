"""The definitions of the operations. A platform runs these unless it has an implementation of its own (cpu.py, tpu.py).

Letters in shapes are those of the paper: B images, S tokens, C channels. W and b are the kernel and the bias of a dense layer, s
and t the scale and the shift of a layer norm.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Tokens = Float[Array, "batch tokens channels"]
Hidden = Float[Array, "batch tokens outputs"]
TokenHidden = Float[Array, "batch outputs channels"]
Kernel = Float[Array, "channels outputs"]
TokenKernel = Float[Array, "tokens outputs"]
Channels = Float[Array, "channels"]
Outputs = Float[Array, "outputs"]

GELU_SCALE, GELU_CUBIC = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the constant of arXiv 1606.08415, section 2.
LAYER_NORM_EPSILON = 1e-6  # The default of nn.LayerNorm.


@jax.custom_jvp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x (1 + tanh(a (x + b x^3))) / 2 with a = GELU_SCALE and b = GELU_CUBIC.

    The derivative is written by hand, with one tanh and in float32. The derivative that JAX makes has more operations.
    """
    return nn.gelu(x)


@gelu.defjvp
def _gelu_jvp(primals: tuple, tangents: tuple) -> tuple:
    """Return gelu(x), and its derivative times dx.

    With a = GELU_SCALE, b = GELU_CUBIC and t = tanh(a (x + b x^3)), the derivative is

        (1 + t) / 2 (1 + x (1 - t) a (1 + 3 b x^2))
    """
    (x,), (dx,) = primals, tangents
    x32 = x.astype(jnp.float32)
    square = x32 * x32
    t = jnp.tanh(x32 * (GELU_SCALE + GELU_SCALE * GELU_CUBIC * square))
    slope = (0.5 + 0.5 * t) * (1.0 + x32 * (1.0 - t) * (GELU_SCALE + 3.0 * GELU_SCALE * GELU_CUBIC * square))
    return gelu(x), (slope * dx).astype(x.dtype)


def layer_norm(x: Tokens, scale: Channels, shift: Channels, dtype: DTypeLike) -> Tokens:
    """Normalize over channels as nn.LayerNorm does: statistics in float32, the result in `dtype`."""
    norm = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=dtype, parent=None)
    normalized = norm.apply({"params": {"scale": scale, "bias": shift}}, x)
    assert isinstance(normalized, jax.Array)  # `apply` returns a pair only if it is given mutable collections.
    return normalized


def dense(x: Float[Array, "batch tokens inputs"], kernel: Float[Array, "*inputs outputs"], bias: Outputs) -> Hidden:
    """Return x W + b. The kernel of a patch projection has three axes of inputs (height, width and colors) instead of one."""
    return x @ kernel.reshape(-1, kernel.shape[-1]) + bias[None, None]


def token_dense(x: Tokens, kernel: TokenKernel, bias: Outputs) -> TokenHidden:
    """Return W^T x + b for each image: a dense layer on the tokens of each channel, without a transpose of x."""
    return jnp.einsum("bsd,bsc->bdc", kernel_per_image(kernel, x), x) + bias[None, :, None]


def norm_dense_gelu(x: Tokens, scale: Channels, shift: Channels, kernel: Kernel, bias: Outputs) -> tuple[Tokens, Hidden]:
    """Return x and gelu(layer_norm(x) W + b).

    It also returns x, so that an implementation can add the gradient of the residual connection inside the norm's backward pass.
    """
    return x, gelu(dense(layer_norm(x, scale, shift, kernel.dtype), kernel, bias))


def norm_token_dense_gelu(
    x: Tokens, scale: Channels, shift: Channels, kernel: TokenKernel, bias: Outputs
) -> tuple[Tokens, TokenHidden]:
    """Return x and gelu(W^T layer_norm(x) + b).

    It also returns x, so that an implementation can add the gradient of the residual connection inside the norm's backward pass.
    """
    return x, gelu(token_dense(layer_norm(x, scale, shift, kernel.dtype), kernel, bias))


def store_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x. An implementation can store the gradient of x once, where the compiler would recompute it for each use."""
    return x


def drop_zero_gradient(bias: Outputs) -> Outputs:
    """Return a bias whose gradient is known to be zero.

    Computing this gradient gives only rounding noise. An implementation can leave the computation out.
    """
    return bias


def kernel_per_image(kernel: TokenKernel, x: Tokens) -> Hidden:
    """Return a copy of the kernel for each image of x, on the device of that image: [S, D] -> [B, S, D].

    Otherwise, if the kernel is split over devices, XLA sends the images to the devices that have its parts.
    """
    return constrain(jnp.broadcast_to(kernel, (x.shape[0], *kernel.shape)), jax.sharding.get_abstract_mesh().axis_names)


def constrain(x: Float[Array, "..."], *axes: tuple[str, ...]) -> Float[Array, "..."]:
    """Split dimension i of x along the mesh axes `axes[i]`, for each i. Other dimensions stay whole.

    Without `axes` every device therefore has all of x. Returns x unchanged where no mesh is in use.
    """
    return x if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))
