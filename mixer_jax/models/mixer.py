"""MLP-Mixer: the model of section 2 of arXiv 2105.01601, its sizes (Table 1), and nothing else.

The parameter tree is that of the released checkpoints: stem, MixerBlock_0/token_mixing/Dense_0, ..., pre_head_layer_norm, head.

    X [S, C] = stem(image)                                        S patches, each projected to C channels
    U = X + (W2 gelu(W1 LN(X)))      token mixing, on columns: W1 [D_S, S], shared by all C channels
    Y = U + (W4 gelu(W3 LN(U)^T))^T  channel mixing, on rows:  W3 [D_C, C], shared by all S tokens
    logits = head(mean over tokens of LN(Y))

Two things the paper's text leaves out and its code has: every matrix has a bias, and gelu is the tanh form.
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
    """One layer: token mixing, then channel mixing, each behind a layer norm and a residual. [B, S, C] -> [B, S, C]."""

    tokens_mlp_dim: int
    channels_mlp_dim: int
    dropout: float
    stoch_depth: float  # this block's own probability
    stoch_depth_rescale: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens channels"], train: bool) -> Float[Array, "batch tokens channels"]:
        def residual_mlp(mlp_dim: int, name: str, on_tokens: bool) -> ResidualMlp:
            norm, drop = LayerNorm(self.dtype), StochasticDepth(self.stoch_depth, self.stoch_depth_rescale)
            return ResidualMlp(mlp_dim, norm, drop, self.dropout, self.dtype, on_tokens, name=name)

        x = residual_mlp(self.tokens_mlp_dim, "token_mixing", on_tokens=True)(x, train=train)
        return residual_mlp(self.channels_mlp_dim, "channel_mixing", on_tokens=False)(x, train=train)


class Mixer(nn.Module):
    """The whole model. `__call__` returns (logits, features by name).

    Attributes:
      num_classes: K, or None for a model without a head, whose "logits" are the pooled features.
      patch_size: P, pixels.
      size: depth and widths (Table 1).
      tile_size: T, pixels; 0: none. On an image of K T x K T pixels, D_S is K^2 times the size's, as supplement C has it for
        fine-tuning at K times the resolution of pre-training.
      dropout: probability after both dense layers of each MLP.
      stoch_depth: probability s of the last block; block i of L has s i / (L - 1).
      stoch_depth_rescale: which convention; see layers.StochasticDepth.
      dtype: of activations and matrix products. Norm statistics, the pooled features and the logits are float32 always.
      remat: recompute every block in the backward pass.
      head_bias_init: the head's kernel starts at zero, its bias at this.
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

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> tuple[Float[Array, "batch outputs"], dict[str, Float[Array, "..."]]]:
        """float [B, H, W, 3] in [-1, 1] -> float32 [B, K], and stem, MixerBlock_i [B, S, C], pre_logits [B, C].

        Images may be cut already, by layers.patchify.

        Needs the random stream "dropout" when train and dropout or stoch_depth are on. Raises UserError for an image size that
        the patch size does not divide, or whose tokens are not as many as the parameters mix.
        """
        patches = patchify(images, self.patch_size)
        height, width = (side * self.patch_size for side in patches.shape[1:3])
        self._check_image_size(height, width)
        tokens_mlp_dim = self.size.tokens_mlp_dim * self._tiles(height, width)
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

    def _tiles(self, height: int, width: int) -> int:
        """K^2, in how many tiles token mixing can start: 1 unless tile_size divides both sides alike."""
        if not self.tile_size or height != width or height % self.tile_size:
            return 1
        return (height // self.tile_size) ** 2

    def _tokens_of_parameters(self) -> int | None:
        if self.is_initializing() or not self.has_variable("params", "MixerBlock_0"):
            return None
        return self.get_variable("params", "MixerBlock_0")["token_mixing"]["Dense_0"]["kernel"].shape[0]
