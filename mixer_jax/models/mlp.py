"""The modules of a block's MLP and of the stem. They call the operations of kernels/, which are fast on each platform.

A module declares the parameters of nn.LayerNorm, nn.Conv or nn.Dense and computes the same numbers. Tests compare both.
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
    """Layer norm over channels, with the parameters of nn.LayerNorm."""

    dtype: DTypeLike

    @nn.compact
    def parameters(self, channels: int) -> tuple[Float[Array, "channels"], Float[Array, "channels"]]:
        """Return the scale and the bias, both float32 [C], for a fused operation that includes the norm."""
        scale = self.param("scale", nn.initializers.ones, (channels,))
        return scale, self.param("bias", nn.initializers.zeros, (channels,))

    def __call__(self, x: Float[Array, "batch tokens channels"]) -> Float[Array, "batch tokens channels"]:
        """Return the normalized tokens, [B, S, C] -> [B, S, C] in `dtype`. Statistics are in float32."""
        return kernels.layer_norm(x, *self.parameters(x.shape[-1]), dtype=self.dtype)


class PatchProjection(nn.Module):
    """A dense layer on each patch, with the parameters of an nn.Conv whose window and stride are the patch size."""

    hidden_dim: int
    patch_size: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, patches: Float[Array, "batch height width patch"]) -> Float[Array, "batch tokens channels"]:
        """Return one token per patch, row by row: [B, H / P, W / P, P P 3] -> [B, S, C]."""
        window = (self.patch_size, self.patch_size, patches.shape[-1] // self.patch_size**2)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (*window, self.hidden_dim))
        bias = self.param("bias", nn.initializers.zeros, (self.hidden_dim,))
        patches, kernel, bias = promote_dtype(patches, kernel, bias, dtype=self.dtype)
        return kernels.dense(patches.reshape(patches.shape[0], -1, patches.shape[-1]), kernel, bias)


class DenseParameters(nn.Module):
    """The parameters of an nn.Dense without the layer itself, for a fused operation that includes the layer."""

    inputs: int
    outputs: int
    dtype: DTypeLike
    kernel_init: Callable
    bias_init: Callable

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "inputs outputs"], Float[Array, "outputs"]]:
        """Return the kernel [inputs, outputs] and the bias [outputs], cast to `dtype`."""
        kernel = self.param("kernel", self.kernel_init, (self.inputs, self.outputs))
        bias = self.param("bias", self.bias_init, (self.outputs,))
        kernel, bias = promote_dtype(kernel, bias, dtype=self.dtype)
        return kernel, bias


class ResidualMlp(nn.Module):
    """An MLP with its norm and residual connection: x + stochastic_depth(dense(gelu(dense(norm(x))))), for x [B, S, C].

    The dense layers act on the channels of each token or, with `on_tokens`, on the tokens of each channel.

    Attributes:
      mlp_dim: the number of outputs of the first dense layer.
      norm: the layer norm. It and `stochastic_depth` are children of the block that makes this module. Their names in the
        parameter tree, and the random numbers that follow from the names, are therefore those of the block's children.
      stochastic_depth: the module that drops the MLP for some examples.
      dropout: probability after both dense layers.
      dtype: type of activations and matrix products.
      on_tokens: mix tokens instead of channels.
      kernel_init: initializer of both kernels.
      bias_init: initializer of both biases.
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
        """Return x plus the output of the MLP, [B, S, C] -> [B, S, C]."""
        width = x.shape[1 if self.on_tokens else 2]
        dtype_and_inits = (self.dtype, self.kernel_init, self.bias_init)
        dense_parameters = DenseParameters(width, self.mlp_dim, *dtype_and_inits, name="Dense_0")
        parameters = (*self.norm.parameters(x.shape[-1]), *dense_parameters())
        x, y = (kernels.norm_token_dense_gelu if self.on_tokens else kernels.norm_dense_gelu)(x, *parameters)
        if not (train or self.on_tokens):  # The model predicts, and this MLP mixes channels.
            # The barrier makes XLA:TPU compute GELU once and store it. Otherwise XLA fuses GELU with the second matmul and
            # computes it again for every tile of the output. Training has no barrier: it already stores the input of GELU for the
            # backward pass, and would store both. Token mixing has none: XLA fuses all of it into one kernel that stores nothing
            # in between, which is faster for B and L.
            y = jax.lax.optimization_barrier(y)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        kernel, bias = DenseParameters(self.mlp_dim, width, *dtype_and_inits, name="Dense_1")()
        if self.on_tokens and not (train and self.dropout):
            # Without dropout, this bias adds the same number to all channels of a token. Every later layer norm subtracts it
            # again, so its gradient is zero. By the TPU compiler's estimate, training is 2.1 % (B/16) and 1.6 % (L/16) faster
            # without computing that gradient, at 64 images per core.
            bias = kernels.drop_zero_gradient(bias)
        y = (kernels.token_dense if self.on_tokens else kernels.dense)(y, kernel, bias)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + self.stochastic_depth(y, train=train)
