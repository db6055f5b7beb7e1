"""The modules of a block's MLP and of the stem: which parameters they have, and which operations (kernels/) take them.

They compute what the reference model's layers compute, from the same parameters (tests/models/test_mlp.py).
"""

from collections.abc import Callable

import jax
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mixer_jax.models import kernels
from mixer_jax.models.layers import StochasticDepth


class LayerNorm(nn.Module):
    """nn.LayerNorm over channels, with its parameters."""

    dtype: DTypeLike

    @nn.compact
    def parameters(self, channels: int) -> tuple[Float[Array, "channels"], Float[Array, "channels"]]:
        """Return scale and bias, float32."""
        scale = self.param("scale", nn.initializers.ones, (channels,))
        return scale, self.param("bias", nn.initializers.zeros, (channels,))

    def __call__(self, x: Float[Array, "batch tokens channels"]) -> Float[Array, "batch tokens channels"]:
        return kernels.layer_norm(x, *self.parameters(x.shape[-1]), dtype=self.dtype)


class PatchProjection(nn.Module):
    """A linear map of each patch, with the parameters of nn.Conv: [B, H / P, W / P, P P 3] -> [B, S, C], row by row."""

    hidden_dim: int
    patch_size: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, patches: Float[Array, "batch height width patch"]) -> Float[Array, "batch tokens channels"]:
        pixels = (self.patch_size, self.patch_size, patches.shape[-1] // self.patch_size**2)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (*pixels, self.hidden_dim))
        bias = self.param("bias", nn.initializers.zeros, (self.hidden_dim,))
        patches, kernel, bias = promote_dtype(patches, kernel, bias, dtype=self.dtype)
        return kernels.dense(patches.reshape(patches.shape[0], -1, patches.shape[-1]), kernel, bias)


class DenseParameters(nn.Module):
    """The kernel and bias of an nn.Dense with so many inputs and outputs, in `dtype`."""

    inputs: int
    outputs: int
    dtype: DTypeLike
    kernel_init: Callable
    bias_init: Callable

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "inputs outputs"], Float[Array, "outputs"]]:
        kernel = self.param("kernel", self.kernel_init, (self.inputs, self.outputs))
        bias = self.param("bias", self.bias_init, (self.outputs,))
        kernel, bias = promote_dtype(kernel, bias, dtype=self.dtype)
        return kernel, bias


class ResidualMlp(nn.Module):
    """x + drop(dense(gelu(dense(norm(x))))) along the channels or, with `on_tokens`, the tokens of x [B, S, C].

    Dropout follows both dense layers. `norm` and `stochastic_depth` belong to the block that makes this module: their names in
    the parameter tree, and with them the random numbers, are those of its children.
    """

    mlp_dim: int
    norm: LayerNorm
    stochastic_depth: StochasticDepth
    dropout: float
    dtype: DTypeLike
    on_tokens: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens channels"], *, train: bool) -> Float[Array, "batch tokens channels"]:
        width = x.shape[1 if self.on_tokens else 2]
        options = (self.dtype, self.kernel_init, self.bias_init)
        first = (*self.norm.parameters(x.shape[-1]), *DenseParameters(width, self.mlp_dim, *options, name="Dense_0")())
        x, y = (kernels.norm_token_dense_gelu if self.on_tokens else kernels.norm_dense_gelu)(x, *first)
        if not (train or self.on_tokens):
            # Compute GELU once and store it. The TPU compiler would fuse it with the second matmul and compute it again for every
            # tile of the output. Training stores what GELU reads, and would then store both. Token mixing as one kernel stores
            # nothing in between, which is faster for B and L.
            y = jax.lax.optimization_barrier(y)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        kernel, bias = DenseParameters(self.mlp_dim, width, *options, name="Dense_1")()
        if self.on_tokens and not (train and self.dropout):
            # The bias adds one number to all channels of a token, which every later norm takes away, so its gradient is zero. By
            # the TPU compiler's estimate training is 2.1 % (B/16) and 1.6 % (L/16) faster without it, at 64 images a core.
            bias = kernels.drop_zero_gradient(bias)
        y = (kernels.token_dense if self.on_tokens else kernels.dense)(y, kernel, bias)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + self.stochastic_depth(y, train=train)
