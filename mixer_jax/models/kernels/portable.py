"""The definitions of the operations that some platforms run in a form of their own (cpu.py, tpu.py). All others run these.

Shapes are in the paper's letters: B images, S tokens, C channels. W and b are the kernel and bias of a dense layer; s and t are
the scale and shift of a layer norm.
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

GELU_SCALE, GELU_CUBIC = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the fit of arXiv 1606.08415, section 2.
LAYER_NORM_EPSILON = 1e-6  # The default of nn.LayerNorm.


@jax.custom_jvp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x (1 + tanh(a (x + b x^3))) / 2 with a = GELU_SCALE and b = GELU_CUBIC.

    The derivative is written by hand, from one tanh and in float32. Differentiation would leave more operations.
    """
    return nn.gelu(x)


@gelu.defjvp
def _gelu_jvp(primals: tuple, tangents: tuple) -> tuple:
    """With t the tanh, the derivative is (1 + t) / 2 (1 + x (1 - t) a (1 + 3 b x^2))."""
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
    assert isinstance(normalized, jax.Array)  # `apply` returns a pair only when it is asked for mutable variables.
    return normalized


def dense(x: Float[Array, "batch tokens inputs"], kernel: Float[Array, "*inputs outputs"], bias: Outputs) -> Hidden:
    """Return x W + b. The kernel of a patch projection has height, width and colors in place of one axis of inputs."""
    return x @ kernel.reshape(-1, kernel.shape[-1]) + bias[None, None]


def token_dense(x: Tokens, kernel: TokenKernel, bias: Outputs) -> TokenHidden:
    """Return W^T x + b for each image: a dense layer along tokens, as the paper's equation has it. Nothing is transposed."""
    return jnp.einsum("bsd,bsc->bdc", kernel_of_each_image(kernel, x), x) + bias[None, :, None]


def norm_dense_gelu(x: Tokens, scale: Channels, shift: Channels, kernel: Kernel, bias: Outputs) -> tuple[Tokens, Hidden]:
    """Return x and gelu(layer_norm(x) W + b).

    Also returns x, so that a kernel can add the residual's gradient inside the norm's backward pass.
    """
    return x, gelu(dense(layer_norm(x, scale, shift, kernel.dtype), kernel, bias))


def norm_token_dense_gelu(
    x: Tokens, scale: Channels, shift: Channels, kernel: TokenKernel, bias: Outputs
) -> tuple[Tokens, TokenHidden]:
    """Return x, for the reason given in norm_dense_gelu, and gelu(W^T layer_norm(x) + b)."""
    return x, gelu(token_dense(layer_norm(x, scale, shift, kernel.dtype), kernel, bias))


def store_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x. A kernel can store its gradient once instead of letting the compiler recompute it for each reader."""
    return x


def drop_zero_gradient(bias: Outputs) -> Outputs:
    """Return a bias whose gradient is zero. Computed, it would be rounding noise; a kernel can leave that out."""
    return bias


def kernel_of_each_image(kernel: TokenKernel, x: Tokens) -> Hidden:
    """Repeat the kernel for each image, on the device of that image. XLA would otherwise move images to the kernel's parts."""
    return constrain(jnp.broadcast_to(kernel, (x.shape[0], *kernel.shape)), jax.sharding.get_abstract_mesh().axis_names)


def constrain(x: Float[Array, "..."], *axes: tuple[str, ...]) -> Float[Array, "..."]:
    """Split the first dimensions of x along these axes of the mesh, if there is one. Without axes, x is whole on each device."""
    return x if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))
