"""Vision Transformer (Dosovitskiy et al., arXiv 2010.11929), the attention-based model that the Mixer paper compares itself with.

    z_0 = [cls; E x_1; ...; E x_S] + E_pos      a learned class token before the S projected patches x_i    (equation 1)
    z'_l = MSA(LN(z_(l-1))) + z_(l-1)           multi-head self-attention, softmax(q k^T / sqrt(C / heads)) v        (2)
    z_l = MLP(LN(z'_l)) + z'_l                  dense, gelu, dense on each token                                     (3)
    y = LN(z_L)[cls]                            the class token after the last block                                 (4)
    logits = head(y)

There are two options. With mean pooling there is no class token, and y is the mean over the patches. With a pre-logits layer, as
in the authors' pre-training, logits = head(tanh(W y)).

The parameters have the names and shapes of the released checkpoints: cls, embedding, Transformer/posembed_input/pos_embedding,
Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query, ..., Transformer/encoder_norm, pre_logits, head.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mixer_jax.errors import UserError
from mixer_jax.models.layers import StochasticDepth, num_patches, patchify, stochastic_depth_rate, zero_init_head
from mixer_jax.models.mlp import LayerNorm, PatchProjection, ResidualMlp


@dataclasses.dataclass(frozen=True)
class Size:
    """The depth and widths of a ViT."""

    num_blocks: int
    hidden_dim: int  # C
    channels_mlp_dim: int  # D_C, the width of the MLP, which acts on the channels of each token
    num_heads: int


# Table 1 of arXiv 2010.11929, which has no S. Our S is the one that the figures of arXiv 2105.01601 show beside Mixer-S, with
# 8 layers as in arXiv 2106.05974. The S of AugReg and timm is smaller (12 layers, width 384).
SIZES = {
    "S": Size(num_blocks=8, hidden_dim=512, channels_mlp_dim=2048, num_heads=8),
    "B": Size(num_blocks=12, hidden_dim=768, channels_mlp_dim=3072, num_heads=12),
    "L": Size(num_blocks=24, hidden_dim=1024, channels_mlp_dim=4096, num_heads=16),
    "H": Size(num_blocks=32, hidden_dim=1280, channels_mlp_dim=5120, num_heads=16),
}


def default_num_heads(hidden_dim: int) -> int:
    """Return the number of attention heads of a ViT of this width, for files of weights that do not state it.

    It is the number in SIZES for this width, or else one head per 64 channels.
    """
    heads = {size.hidden_dim: size.num_heads for size in SIZES.values()}
    return heads.get(hidden_dim, max(1, hidden_dim // 64))


KERNEL_INIT = nn.initializers.xavier_uniform()
MLP_BIAS_INIT = nn.initializers.normal(1e-6)
POSITION_INIT = nn.initializers.normal(0.02)


class PositionEmbedding(nn.Module):
    """Position embeddings: one learned vector for each token."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens channels"]) -> Float[Array, "batch tokens channels"]:
        """Return the tokens plus their embeddings, [B, S, C] -> [B, S, C]."""
        embedding = self.param("pos_embedding", POSITION_INIT, (1, *x.shape[1:]))
        return x + embedding.astype(x.dtype)


class EncoderBlock(nn.Module):
    """One layer: self-attention, then an MLP, each after a layer norm and inside a residual connection.

    Attributes:
      num_heads: number of attention heads.
      mlp_dim: width of the MLP.
      dropout: probability after the attention and after both dense layers of the MLP.
      stoch_depth: probability that the attention, and separately the MLP, of this block is dropped for an example.
      stoch_depth_rescale: divide the output of a branch that is not dropped by 1 - stoch_depth.
      dtype: type of activations and matrix products.
    """

    num_heads: int
    mlp_dim: int
    dropout: float
    stoch_depth: float
    stoch_depth_rescale: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens channels"], train: bool) -> Float[Array, "batch tokens channels"]:
        """Return the block's output, [B, S, C] -> [B, S, C]."""
        y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm_0")(x)
        # Attention weights have no dropout: the paper applies it "after every dense layer except for the qkv-projections"
        # (appendix B.1). The softmax is in float32, as all reductions of our models are.
        attention = nn.MultiHeadDotProductAttention(
            self.num_heads,
            kernel_init=KERNEL_INIT,
            force_fp32_for_softmax=True,
            dtype=self.dtype,
            name="MultiHeadDotProductAttention_1",
        )
        y = nn.Dropout(self.dropout, deterministic=not train)(attention(y))
        x = x + StochasticDepth(self.stoch_depth, self.stoch_depth_rescale)(y, train=train)
        mlp = ResidualMlp(
            mlp_dim=self.mlp_dim,
            norm=LayerNorm(self.dtype, name="LayerNorm_2"),
            stochastic_depth=StochasticDepth(self.stoch_depth, self.stoch_depth_rescale),
            dropout=self.dropout,
            dtype=self.dtype,
            kernel_init=KERNEL_INIT,
            bias_init=MLP_BIAS_INIT,
            name="MlpBlock_3",
        )
        return mlp(x, train=train)


class Encoder(nn.Module):
    """Position embeddings, all blocks, and a layer norm in float32."""

    size: Size
    dropout: float
    stoch_depth: float
    stoch_depth_rescale: bool
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens channels"], *, train: bool
    ) -> tuple[Float[Array, "batch tokens channels"], dict[str, Float[Array, "batch tokens channels"]]]:
        """Return the encoded tokens, [B, S, C] -> float32 [B, S, C], and the output of each block by name."""
        features = {}
        x = PositionEmbedding(name="posembed_input")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        block_class = nn.remat(EncoderBlock, static_argnums=(2,)) if self.remat else EncoderBlock
        for i in range(self.size.num_blocks):
            x = features[f"encoderblock_{i}"] = block_class(
                num_heads=self.size.num_heads,
                mlp_dim=self.size.channels_mlp_dim,
                dropout=self.dropout,
                stoch_depth=stochastic_depth_rate(i, self.size.num_blocks, self.stoch_depth),
                stoch_depth_rescale=self.stoch_depth_rescale,
                dtype=self.dtype,
                name=f"encoderblock_{i}",
            )(x, train)
        return nn.LayerNorm(dtype=jnp.float32, name="encoder_norm")(x), features


class VisionTransformer(nn.Module):
    """The whole model, from images to logits and features.

    Attributes:
      num_classes: K, or None for a model without a head, which returns the pre-logits in place of logits.
      patch_size: P, in pixels.
      size: depth and widths (Table 1).
      pooling: what the head reads: the class token ("token"), or the mean over patches of a model without a class token ("mean").
      pre_logits_dim: width of a dense layer with tanh before the head. The authors' pre-training has it with width C, and their
        fine-tuning drops it. 0: there is no such layer.
      dropout: probability after the position embeddings, each attention and both dense layers of each MLP.
      stoch_depth: probability s that a branch of the last block is dropped for an example. Block i of 0..L-1 has s i / (L - 1).
      stoch_depth_rescale: True divides the output of a branch that is not dropped by 1 minus this probability, as timm and scenic
        do. False leaves it unchanged, as big_vision does. Evaluation adds all branches unchanged in both cases.
      dtype: type of activations and matrix products. The softmax, norm statistics, pooled features, pre-logits and logits are
        always float32.
      remat: recompute each block in the backward pass, to save memory.
      head_bias_init: initial value of the head's bias. The head's kernel starts at zero.
      permutation: the order of the pixels in which the model sees every image (permutation.py).
    """

    num_classes: int | None
    patch_size: int
    size: Size
    pooling: str = "token"
    pre_logits_dim: int = 0
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
          Logits, float32 [B, K]; and "stem" [B, S, C], "encoderblock_i" [B, 1 + S, C] with the class token first ([B, S, C] with
          mean pooling), and "pre_logits", float32 [B, C] or, with a pre-logits layer, [B, pre_logits_dim].

        Raises:
          UserError: the images do not have three colors, P does not divide their sides, or their number of tokens is not the
            number of position embeddings that the parameters have.
        """
        patches = patchify(images, self.patch_size, self.permutation)
        self._check_image_size(*(side * self.patch_size for side in patches.shape[1:3]))
        x = PatchProjection(self.size.hidden_dim, self.patch_size, self.dtype, name="embedding")(patches)
        features = {"stem": x}
        if self.pooling == "token":
            cls = self.param("cls", nn.initializers.zeros, (1, 1, x.shape[-1]))
            x = jnp.concatenate([jnp.broadcast_to(cls.astype(x.dtype), (x.shape[0], 1, x.shape[-1])), x], axis=1)
        encoder = Encoder(
            size=self.size,
            dropout=self.dropout,
            stoch_depth=self.stoch_depth,
            stoch_depth_rescale=self.stoch_depth_rescale,
            dtype=self.dtype,
            remat=self.remat,
            name="Transformer",
        )
        x, block_outputs = encoder(x, train=train)
        features |= block_outputs
        x = x[:, 0] if self.pooling == "token" else jnp.mean(x, axis=1)  # [B, C]
        if self.pre_logits_dim:
            x = jnp.tanh(nn.Dense(self.pre_logits_dim, dtype=jnp.float32, name="pre_logits")(x))
        features["pre_logits"] = x
        if self.num_classes is None:
            return x, features
        return zero_init_head(self.num_classes, self.head_bias_init)(x), features

    def _check_image_size(self, height: int, width: int) -> None:
        patch = self.patch_size
        patches = num_patches(height, width, patch)
        class_tokens = int(self.pooling == "token")
        positions = self._positions_of_parameters()
        if positions not in (None, patches + class_tokens):
            raise UserError(
                f"A {height} x {width} image has {patches} patches of {patch} x {patch}"
                f"{' and a class token' if class_tokens else ''}, but the parameters have position embeddings for {positions} "
                "tokens. Load the weights from their file for this image size: loading interpolates the position embeddings."
            )

    def _positions_of_parameters(self) -> int | None:
        """Return the number of position embeddings that the given parameters have, or None while parameters are being made."""
        if self.is_initializing() or not self.has_variable("params", "Transformer"):
            return None
        return self.get_variable("params", "Transformer")["posembed_input"]["pos_embedding"].shape[1]
