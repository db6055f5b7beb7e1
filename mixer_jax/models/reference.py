"""The reference of every comparison of speed: the model as the listing of arXiv 2105.01601 (supplement E) has it, made plain.

A strided convolution, transposes around the token mixing, dense layers, the tanh form of GELU. Its parameters are those of
models/mixer.py, and so are its numbers; what that one does to be faster is left out here. Nothing trains with it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class Mlp(nn.Module):
    """[..., D] -> [..., D]."""

    mlp_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.gelu(nn.Dense(self.mlp_dim, dtype=self.dtype)(x))
        return nn.Dense(x.shape[-1], dtype=self.dtype)(y)


class Block(nn.Module):
    """[B, S, C] -> [B, S, C]."""

    tokens_mlp_dim: int
    channels_mlp_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = jnp.swapaxes(nn.LayerNorm(dtype=self.dtype)(x), 1, 2)
        x = x + jnp.swapaxes(Mlp(self.tokens_mlp_dim, self.dtype, name="token_mixing")(y), 1, 2)
        return x + Mlp(self.channels_mlp_dim, self.dtype, name="channel_mixing")(nn.LayerNorm(dtype=self.dtype)(x))


class ReferenceMixer(nn.Module):
    """float [B, H, W, 3] in [-1, 1] -> float32 logits [B, K], and pre_logits [B, C]. `train` changes nothing."""

    num_classes: int
    patch_size: int
    num_blocks: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        patch = (self.patch_size, self.patch_size)
        x = nn.Conv(self.hidden_dim, patch, strides=patch, dtype=self.dtype, name="stem")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for i in range(self.num_blocks):
            x = Block(self.tokens_mlp_dim, self.channels_mlp_dim, self.dtype, name=f"MixerBlock_{i}")(x)
        x = nn.LayerNorm(name="pre_head_layer_norm")(x).mean(axis=1)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(x), {"pre_logits": x}
