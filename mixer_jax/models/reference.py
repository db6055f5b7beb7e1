"""The reference model: MLP-Mixer as the paper's code has it (arXiv 2105.01601, supplement E), without our own kernels.

It consists of a strided convolution, token mixing between two transposes, dense layers, and the tanh approximation of GELU. It
has the parameters of the model that is trained (Mixer in models/mixer.py) and computes the same numbers. It exists for
comparison: tests compare the numbers, and benchmarks compare the speed. No run trains it.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class Mlp(nn.Module):
    """Two dense layers on the last axis, with GELU between them."""

    mlp_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*axes inputs"]) -> Float[Array, "*axes inputs"]:
        """Return an array of the shape of x."""
        y = nn.gelu(nn.Dense(self.mlp_dim, dtype=self.dtype)(x))
        return nn.Dense(x.shape[-1], dtype=self.dtype)(y)


class Block(nn.Module):
    """Token mixing, then channel mixing, each after a layer norm and inside a residual connection."""

    tokens_mlp_dim: int
    channels_mlp_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens channels"]) -> Float[Array, "batch tokens channels"]:
        """Return the block's output, [B, S, C] -> [B, S, C]."""
        y = jnp.swapaxes(nn.LayerNorm(dtype=self.dtype)(x), 1, 2)
        x = x + jnp.swapaxes(Mlp(self.tokens_mlp_dim, self.dtype, name="token_mixing")(y), 1, 2)
        return x + Mlp(self.channels_mlp_dim, self.dtype, name="channel_mixing")(nn.LayerNorm(dtype=self.dtype)(x))


class ReferenceMixer(nn.Module):
    """The whole model, from images to logits and pooled features."""

    num_classes: int
    patch_size: int
    num_blocks: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool = False
    ) -> tuple[Float[Array, "batch classes"], dict[str, Float[Array, "batch channels"]]]:
        """Return float32 logits [B, K] and "pre_logits" [B, C] for images [B, H, W, 3] in [-1, 1].

        `train` has no effect: the model has neither dropout nor stochastic depth.
        """
        patch = (self.patch_size, self.patch_size)
        x = nn.Conv(self.hidden_dim, patch, strides=patch, dtype=self.dtype, name="stem")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for i in range(self.num_blocks):
            x = Block(self.tokens_mlp_dim, self.channels_mlp_dim, self.dtype, name=f"MixerBlock_{i}")(x)
        x = nn.LayerNorm(name="pre_head_layer_norm")(x).mean(axis=1)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(x), {"pre_logits": x}
