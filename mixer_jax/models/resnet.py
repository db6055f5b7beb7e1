"""BiT-ResNet (Kolesnikov et al., arXiv 1912.11370), the convolutional model that the Mixer paper compares itself with.

A pre-activation ResNet (He et al., arXiv 1603.05027) with group norm in place of batch norm and weight standardization in every
convolution (Qiao et al., arXiv 1903.10520):

    x = max_pool(conv7x7/2(image))                                 the root
    u = relu(GN(x))                                                a unit begins with step a
    s = x, or conv1x1(u) where the unit changes the shape          its shortcut
    y = s + conv1x1(relu(GN(conv3x3(relu(GN(conv1x1(u)))))))       steps a (1x1), b (3x3) and c (1x1)
    logits = head(mean over positions of relu(GN(y)))              after the last unit

The units form four stages. Each stage after the first halves the resolution and doubles the number of channels.

Implementations differ in two details. This file follows the authors' three released codes (TF 2, PyTorch, JAX) in both. First,
the max-pool is padded with zeros, as in timm. big_vision pads with minus infinity, which gives another result at borders where
all values are negative. Second, a kernel is divided by sqrt(variance + 1e-10), where timm has 1e-8.

The parameters have the names and shapes of the released checkpoints below "resnet/": root_block/standardized_conv2d,
block1/unit01/a/group_norm, block1/unit01/a/proj/standardized_conv2d, ..., group_norm, head/conv2d.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mixer_jax.models.layers import permute_into_rows

WIDTH = 64  # The number of channels of the root, and of steps a and b in the first stage, at width factor 1.
GROUPS = 32  # The number of groups of every group norm. All widths are multiples of it.
EXPANSION = 4  # A unit has this many times as many output channels as its steps a and b have.


@dataclasses.dataclass(frozen=True)
class Size:
    """The depth and width of a BiT-ResNet."""

    units: tuple[int, ...]  # units in each stage
    width_factor: int = 1
    base_width: int = WIDTH

    @property
    def root_width(self) -> int:
        """Return the number of channels of the root."""
        return self.base_width * self.width_factor


# The number of units in each of the four stages, by the first part of a variant's name. R50x1 is R50 with width factor 1. Source:
# arXiv 1912.11370, section 3 and appendix; for R200, arXiv 2010.11929, Table 6.
UNITS = {"R50": (3, 4, 6, 3), "R101": (3, 4, 23, 3), "R152": (3, 8, 36, 3), "R200": (3, 24, 36, 3)}
WIDTH_FACTORS = (1, 2, 3, 4)


def standardize(x: Float[Array, "*axes"], axes: tuple[int, ...], epsilon: float) -> Float[Array, "*axes"]:
    """Return (x - mean) / sqrt(variance + epsilon) in float32.

    The mean and the variance are over `axes`. The variance is the mean square of x - mean, which is the biased estimate.
    """
    x = x.astype(jnp.float32)
    return (x - jnp.mean(x, axes, keepdims=True)) / jnp.sqrt(jnp.var(x, axes, keepdims=True) + epsilon)


class GroupNorm(nn.Module):
    """Group norm (Wu and He, arXiv 1803.08494), over all positions and the channels of a group, computed in float32."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
        """Return the normalized x, [B, h, w, C] -> [B, h, w, C] in `dtype`."""
        channels = x.shape[-1]
        gamma = self.param("gamma", nn.initializers.ones, (channels,))
        beta = self.param("beta", nn.initializers.zeros, (channels,))
        groups = x.reshape(*x.shape[:-1], GROUPS, channels // GROUPS)
        y = standardize(groups, axes=(1, 2, 4), epsilon=1e-5).reshape(x.shape)
        return (y * gamma[None, None, None] + beta[None, None, None]).astype(self.dtype)


class StandardizedConv(nn.Module):
    """A convolution without bias whose kernel is standardized for each output channel, in float32 whatever `dtype` is."""

    features: int
    kernel_size: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch out_height out_width features"]:
        """Return [B, h, w, I] -> [B, ceil(h / stride), ceil(w / stride), features].

        Images are padded with (kernel_size - 1) / 2 zeros on each side.
        """
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        kernel = standardize(kernel, axes=(0, 1, 2), epsilon=1e-10)
        margin = self.kernel_size // 2
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=((margin, margin), (margin, margin)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class RootBlock(nn.Module):
    """The root: a 7x7 convolution and a 3x3 max-pool, both with stride 2."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width features"]:
        """Return [B, H, W, 3] -> [B, ceil(H / 4), ceil(W / 4), features]."""
        x = StandardizedConv(self.features, 7, 2, self.dtype, name="standardized_conv2d")(images)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # The padding of max_pool is minus infinity.
        return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")


class Projection(nn.Module):
    """The 1x1 convolution of a shortcut."""

    features: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch out_height out_width features"]:
        """Return [B, h, w, I] -> [B, ceil(h / stride), ceil(w / stride), features]."""
        return StandardizedConv(self.features, 1, self.stride, self.dtype, name="standardized_conv2d")(x)


class Step(nn.Module):
    """Group norm, relu and a convolution, and the projected shortcut if this step makes it."""

    features: int
    kernel_size: int
    dtype: DTypeLike
    stride: int = 1
    proj: tuple[int, int] | None = None  # The number of channels and the stride of the shortcut. None: no shortcut is projected.

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[
        Float[Array, "batch out_height out_width features"], Float[Array, "batch shortcut_height shortcut_width outputs"] | None
    ]:
        """Return the output of the convolution, [B, h, w, I] -> [B, h', w', features], and the projected shortcut or None."""
        x = nn.relu(GroupNorm(self.dtype, name="group_norm")(x))
        y = StandardizedConv(self.features, self.kernel_size, self.stride, self.dtype, name="standardized_conv2d")(x)
        return y, Projection(*self.proj, self.dtype, name="proj")(x) if self.proj else None


class BottleneckUnit(nn.Module):
    """One residual unit: steps a (1x1), b (3x3) and c (1x1), added to the shortcut."""

    features: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch out_height out_width features"]:
        """Return [B, h, w, I] -> [B, ceil(h / stride), ceil(w / stride), 4 features]."""
        outputs = EXPANSION * self.features
        changes_shape = self.stride != 1 or x.shape[-1] != outputs
        proj = (outputs, self.stride) if changes_shape else None
        y, shortcut = Step(self.features, 1, self.dtype, proj=proj, name="a")(x)
        y, _ = Step(self.features, 3, self.dtype, stride=self.stride, name="b")(y)
        y, _ = Step(outputs, 1, self.dtype, name="c")(y)
        return y + (x if shortcut is None else shortcut)


class Stage(nn.Module):
    """Units of one width. The first of them has the stride."""

    num_units: int
    features: int
    stride: int
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch out_height out_width features"]:
        """Return [B, h, w, I] -> [B, ceil(h / stride), ceil(w / stride), 4 features]."""
        unit_class = nn.remat(BottleneckUnit) if self.remat else BottleneckUnit
        for i in range(self.num_units):
            x = unit_class(self.features, 1 if i else self.stride, self.dtype, name=f"unit{i + 1:02d}")(x)
        return x


class Head(nn.Module):
    """The classifier: a 1x1 convolution, because the released checkpoints store it as one."""

    num_classes: int
    bias_init: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch channels"]) -> Float[Array, "batch classes"]:
        """Return float32 logits, [B, C] -> [B, K]. All are `bias_init` at first."""
        conv = nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.constant(self.bias_init),
            dtype=jnp.float32,
            name="conv2d",
        )
        return conv(x[:, None, None])[:, 0, 0]


class ResNet(nn.Module):
    """The whole model, from images to logits and features.

    Attributes:
      num_classes: K, or None for a model without a head, which returns the pooled features in place of logits.
      size: the number of units in each stage, and the width.
      dtype: type of activations and convolutions. Norm statistics, weight standardization, the pooled features and the logits are
        always float32.
      remat: recompute each unit in the backward pass, to save memory.
      head_bias_init: initial value of the head's bias. The head's kernel starts at zero.
      permutation: the order of the pixels in which the model sees every image (permutation.py).
    """

    num_classes: int | None
    size: Size
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    head_bias_init: float = 0.0
    permutation: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width colors"], *, train: bool = False
    ) -> tuple[Float[Array, "batch outputs"], dict[str, Float[Array, "..."]]]:
        """Return the logits and the features by name.

        Args:
          images: float [B, H, W, 3] in [-1, 1], of any height and width. With a permutation, they may also be in the form that
            `permute_into_rows` returns, [B, H, 1, W 3].
          train: has no effect. The family has neither dropout nor batch statistics.

        Returns:
          Logits, float32 [B, K]; and "root_block" [B, H / 4, W / 4, C_0], "block1" [B, H / 4, W / 4, 4 C_0], "block2"
          [B, H / 8, W / 8, 8 C_0], ... (with sizes rounded up), and "pre_logits", float32 [B, C], the mean after the last norm
          and relu.
        """
        if self.permutation != "none":
            rows = permute_into_rows(images, self.permutation)
            images = rows.reshape(*rows.shape[:2], -1, 3)
        width = self.size.root_width
        x = RootBlock(width, self.dtype, name="root_block")(images)
        features = {"root_block": x}
        for i, num_units in enumerate(self.size.units):
            name = f"block{i + 1}"
            stage = Stage(num_units, width * 2**i, 2 if i else 1, self.dtype, self.remat, name=name)
            x = features[name] = stage(x)
        x = nn.relu(GroupNorm(jnp.float32, name="group_norm")(x))
        x = features["pre_logits"] = jnp.mean(x, axis=(1, 2))  # [B, C]
        if self.num_classes is None:
            return x, features
        return Head(self.num_classes, self.head_bias_init, name="head")(x), features
