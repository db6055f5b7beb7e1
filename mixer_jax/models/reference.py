"""The reference model: MLP-Mixer as the paper's code writes it (arXiv 2105.01601, supplement E), without kernels of ours.

A strided convolution, transposes around the token mixing, dense layers, the tanh form of GELU. It has the parameters of
models/mixer.py and computes the same numbers. Comparisons of speed measure against it. Nothing trains with it.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class Mlp(nn.Module):
    """Dense, GELU, dense along the last axis."""

    mlp_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*axes inputs"]) -> Float[Array, "*axes inputs"]:
        y = nn.gelu(nn.Dense(self.mlp_dim, dtype=self.dtype)(x))
        return nn.Dense(x.shape[-1], dtype=self.dtype)(y)


class Block(nn.Module):
    """Token mixing, then channel mixing, each behind a layer norm and a residual."""

    tokens_mlp_dim: int
    channels_mlp_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens channels"]) -> Float[Array, "batch tokens channels"]:
        y = jnp.swapaxes(nn.LayerNorm(dtype=self.dtype)(x), 1, 2)
        x = x + jnp.swapaxes(Mlp(self.tokens_mlp_dim, self.dtype, name="token_mixing")(y), 1, 2)
        return x + Mlp(self.channels_mlp_dim, self.dtype, name="channel_mixing")(nn.LayerNorm(dtype=self.dtype)(x))


class ReferenceMixer(nn.Module):
    """The whole model. `__call__` takes images in [-1, 1] and returns float32 logits and pre_logits. `train` changes nothing."""

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
        patch = (self.patch_size, self.patch_size)
        x = nn.Conv(self.hidden_dim, patch, strides=patch, dtype=self.dtype, name="stem")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for i in range(self.num_blocks):
            x = Block(self.tokens_mlp_dim, self.channels_mlp_dim, self.dtype, name=f"MixerBlock_{i}")(x)
        x = nn.LayerNorm(name="pre_head_layer_norm")(x).mean(axis=1)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(x), {"pre_logits": x}
