"""MLP-Mixer: the model of section 2 of arXiv 2105.01601 and its sizes (Table 1).

    X = stem(image)                    X [S, C]: S patches, each projected to C channels
    U = X + W2 gelu(W1 LN(X))          token mixing, on columns: W1 [D_S, S] and W2 [S, D_S] are shared by all C channels
    Y = U + (W4 gelu(W3 LN(U)^T))^T    channel mixing, on rows: W3 [D_C, C] and W4 [C, D_C] are shared by all S tokens
    logits = head(mean over tokens of LN(Y))

The second and third lines are one block. A model is a chain of such blocks. Two details are in the paper's code but not in its
text, and this file has them: every matrix has a bias, and gelu is the tanh approximation.

The parameters have the names and shapes of the released checkpoints: stem, MixerBlock_0/token_mixing/Dense_0, ...,
pre_head_layer_norm, head.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mixer_jax.errors import UserError
from mixer_jax.models import kernels
from mixer_jax.models.layers import StochasticDepth, num_patches, patchify, stochastic_depth_rate, zero_init_head
from mixer_jax.models.mlp import LayerNorm, PatchProjection, ResidualMlp


@dataclasses.dataclass(frozen=True)
class Size:
    """The depth and widths of a Mixer, in the symbols of Table 1."""

    num_blocks: int
    hidden_dim: int  # C
    channels_mlp_dim: int  # D_C
    tokens_mlp_dim: int  # D_S


# Table 1 of arXiv 2105.01601. Its seven models are S/32, S/16, B/32, B/16, L/32, L/16 and H/14.
SIZES = {
    "S": Size(num_blocks=8, hidden_dim=512, channels_mlp_dim=2048, tokens_mlp_dim=256),
    "B": Size(num_blocks=12, hidden_dim=768, channels_mlp_dim=3072, tokens_mlp_dim=384),
    "L": Size(num_blocks=24, hidden_dim=1024, channels_mlp_dim=4096, tokens_mlp_dim=512),
    "H": Size(num_blocks=32, hidden_dim=1280, channels_mlp_dim=5120, tokens_mlp_dim=640),
}


class MixerBlock(nn.Module):
    """One layer: token mixing, then channel mixing, each after a layer norm and inside a residual connection.

    Attributes:
      tokens_mlp_dim: D_S, the width of the token-mixing MLP.
      channels_mlp_dim: D_C, the width of the channel-mixing MLP.
      dropout: probability after both dense layers of each MLP.
      stoch_depth: probability that an MLP of this block is dropped for an example. Each MLP has its own draw.
      stoch_depth_rescale: divide the output of an MLP that is not dropped by 1 - stoch_depth.
      dtype: type of activations and matrix products.
    """

    tokens_mlp_dim: int
    channels_mlp_dim: int
    dropout: float
    stoch_depth: float
    stoch_depth_rescale: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens channels"], train: bool) -> Float[Array, "batch tokens channels"]:
        """Return the block's output, [B, S, C] -> [B, S, C]."""

        def residual_mlp(mlp_dim: int, name: str, on_tokens: bool) -> ResidualMlp:
            norm, stochastic_depth = LayerNorm(self.dtype), StochasticDepth(self.stoch_depth, self.stoch_depth_rescale)
            return ResidualMlp(mlp_dim, norm, stochastic_depth, self.dropout, self.dtype, on_tokens, name=name)

        x = residual_mlp(self.tokens_mlp_dim, "token_mixing", on_tokens=True)(x, train=train)
        return residual_mlp(self.channels_mlp_dim, "channel_mixing", on_tokens=False)(x, train=train)


class Mixer(nn.Module):
    """The whole model, from images to logits and features.

    Attributes:
      num_classes: K, or None for a model without a head, which returns the pooled features in place of logits.
      patch_size: P, in pixels.
      size: depth and widths (Table 1).
      tile_size: T, in pixels. For images of K T x K T pixels, the token-mixing MLPs are K^2 times as wide as `size` says. This is
        supplement C of the paper, which fine-tunes at K times the resolution T of pre-training. 0: they keep the width.
      dropout: probability after both dense layers of each MLP.
      stoch_depth: probability s that an MLP of the last block is dropped for an example. Block i of 0..L-1 has s i / (L - 1).
      stoch_depth_rescale: True divides the output of an MLP that is not dropped by 1 minus this probability, as timm and scenic
        do. False leaves it unchanged, as the authors' code (big_vision) does. Evaluation adds all MLPs unchanged in both cases.
      dtype: type of activations and matrix products. Norm statistics, the pooled features and the logits are always float32.
      remat: recompute each block in the backward pass, to save memory.
      head_bias_init: initial value of the head's bias. The head's kernel starts at zero.
      permutation: the order of the pixels in which the model sees every image (permutation.py).
    """

    num_classes: int | None
    patch_size: int
    size: Size
    tile_size: int = 0
    dropout: float = 0.0
    stoch_depth: float = 0.0
    stoch_depth_rescale: bool = False
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    head_bias_init: float = 0.0
    permutation: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> tuple[Float[Array, "batch outputs"], dict[str, Float[Array, "..."]]]:
        """Return the logits and the features by name.

        Args:
          images: float [B, H, W, 3] in [-1, 1], or the same images as `patchify` cuts them into patches with this patch size and
            permutation: [B, H / P, W / P, P P 3].
          train: apply dropout and stochastic depth. If either probability is above 0, `apply` needs rngs={"dropout": key}.

        Returns:
          Logits, float32 [B, K]; and "stem" and "MixerBlock_i", both [B, S, C], and "pre_logits", float32 [B, C].

        Raises:
          UserError: the images do not have three colors, P does not divide their sides, or their number of patches is not the
            number of inputs that the token-mixing parameters have.
        """
        patches = patchify(images, self.patch_size, self.permutation)
        height, width = (side * self.patch_size for side in patches.shape[1:3])
        self._check_image_size(height, width)
        tokens_mlp_dim = self.size.tokens_mlp_dim * self._num_tiles(height, width)
        features = {}
        x = features["stem"] = PatchProjection(self.size.hidden_dim, self.patch_size, self.dtype, name="stem")(patches)
        block_class = nn.remat(MixerBlock, static_argnums=(2,)) if self.remat else MixerBlock
        for i in range(self.size.num_blocks):
            x = features[f"MixerBlock_{i}"] = block_class(
                tokens_mlp_dim=tokens_mlp_dim,
                channels_mlp_dim=self.size.channels_mlp_dim,
                dropout=self.dropout,
                stoch_depth=stochastic_depth_rate(i, self.size.num_blocks, self.stoch_depth),
                stoch_depth_rescale=self.stoch_depth_rescale,
                dtype=self.dtype,
                name=f"MixerBlock_{i}",
            )(x, train)
        # store_gradient returns x. On a TPU the gradient of x is then stored once, and not recomputed for each of its four uses.
        x = LayerNorm(dtype=jnp.float32, name="pre_head_layer_norm")(kernels.store_gradient(x))
        x = features["pre_logits"] = jnp.mean(x, axis=1)  # [B, C]
        if self.num_classes is None:
            return x, features
        return zero_init_head(self.num_classes, self.head_bias_init)(x), features

    def _check_image_size(self, height: int, width: int) -> None:
        patch, trained_tokens = self.patch_size, self._tokens_of_parameters()
        tokens = num_patches(height, width, patch)
        if trained_tokens not in (None, tokens):
            side = round(trained_tokens**0.5) * patch
            raise UserError(
                f"A {height} x {width} image has {tokens} patches of {patch} x {patch}, but the token-mixing parameters mix "
                f"{trained_tokens}: they fit images of {trained_tokens} patches, such as {side} x {side}. Load the weights "
                "from their file for this image size: loading does the surgery that another resolution needs."
            )

    def _num_tiles(self, height: int, width: int) -> int:
        """Return K^2 for an image of K T x K T pixels, where T is tile_size. Return 1 for all other images and for T = 0."""
        if not self.tile_size or height != width or height % self.tile_size:
            return 1
        return (height // self.tile_size) ** 2

    def _tokens_of_parameters(self) -> int | None:
        """Return the number of tokens that the given parameters mix, or None while the parameters are being made."""
        if self.is_initializing() or not self.has_variable("params", "MixerBlock_0"):
            return None
        return self.get_variable("params", "MixerBlock_0")["token_mixing"]["Dense_0"]["kernel"].shape[0]
