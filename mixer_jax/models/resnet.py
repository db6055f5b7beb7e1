"""BiT-ResNet (Kolesnikov et al., arXiv 1912.11370), the convolutional model that the Mixer paper compares itself with.

A pre-activation ResNet (He et al., arXiv 1603.05027) with group norm in place of batch norm and weight standardization in every
convolution (Qiao et al., arXiv 1903.10520). The parameter tree is that of the released checkpoints below their "resnet/":
root_block/standardized_conv2d, block1/unit01/a/group_norm, block1/unit01/a/proj/standardized_conv2d, ..., group_norm, head/conv2d

    x = max_pool(conv7x7/2(image))                root
    u = relu(GN(x))                               unit, step a; the shortcut is x, or proj1x1(u) where the shape changes
    y = shortcut + conv1x1(relu(GN(conv3x3(relu(GN(conv1x1(u)))))))                        steps b (3x3) and c (1x1)
    logits = head(mean over positions of relu(GN(y)))

Four stages of such units; each but the first halves the resolution and doubles the channels. Two traps, settled as in the
authors' three released codes (TF 2, PyTorch, JAX): the max-pool is padded with zeros, as timm's is, where big_vision's is padded
with minus infinity, which differs at borders whose values are all negative; and a kernel is divided by sqrt(variance + 1e-10),
where timm has 1e-8.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

WIDTH = 64  # channels of the root, and of the first stage's inner convolutions, at width factor 1
GROUPS = 32  # of every group norm: all widths are multiples of it
EXPANSION = 4  # of a unit's output over its inner width


@dataclasses.dataclass(frozen=True)
class Size:
    units: tuple[int, ...]  # units in each stage
    width_factor: int = 1
    base_width: int = WIDTH

    @property
    def root_width(self) -> int:
        return self.base_width * self.width_factor


# Units of the four stages, by the name's first part: R50x1 is R50 with width factor 1 (arXiv 1912.11370, section 3 and appendix;
# R200 as in arXiv 2010.11929, Table 6).
UNITS = {"R50": (3, 4, 6, 3), "R101": (3, 4, 23, 3), "R152": (3, 8, 36, 3), "R200": (3, 24, 36, 3)}
WIDTH_FACTORS = (1, 2, 3, 4)


def standardize(x: Float[Array, "*axes"], axes: tuple[int, ...], epsilon: float) -> Float[Array, "*axes"]:
    """(x - mean) / sqrt(variance + epsilon) over `axes`, in float32. The variance is the biased one, of centered values."""
    x = x.astype(jnp.float32)
    return (x - jnp.mean(x, axes, keepdims=True)) / jnp.sqrt(jnp.var(x, axes, keepdims=True) + epsilon)


class GroupNorm(nn.Module):
    """Group norm (Wu and He, arXiv 1803.08494) over positions and the channels of a group, in float32: [B, h, w, C] -> same."""

    dtype: DTypeLike  # of the output

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
        channels = x.shape[-1]
        gamma = self.param("gamma", nn.initializers.ones, (channels,))
        beta = self.param("beta", nn.initializers.zeros, (channels,))
        groups = x.reshape(*x.shape[:-1], GROUPS, channels // GROUPS)
        y = standardize(groups, axes=(1, 2, 4), epsilon=1e-5).reshape(x.shape)
        return (y * gamma[None, None, None] + beta[None, None, None]).astype(self.dtype)


class StandardizedConv(nn.Module):
    """A convolution without bias whose kernel is standardized for each output channel.

    [B, h, w, I] -> [B, ceil(h / stride), ceil(w / stride), features], padded with (kernel_size - 1) / 2 zeros on every side. The
    standardization is in float32, whatever `dtype` is.
    """

    features: int
    kernel_size: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch out_height out_width features"]:
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
    """7x7 convolution and 3x3 max-pool, both of stride 2: [B, H, W, 3] -> [B, ceil(H / 4), ceil(W / 4), features]."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width features"]:
        x = StandardizedConv(self.features, 7, 2, self.dtype, name="standardized_conv2d")(images)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # not max_pool's own padding, which is minus infinity
        return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")


class Projection(nn.Module):
    """The 1x1 convolution of a shortcut."""

    features: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch out_height out_width features"]:
        return StandardizedConv(self.features, 1, self.stride, self.dtype, name="standardized_conv2d")(x)


class Step(nn.Module):
    """Group norm, relu, convolution: [B, h, w, I] -> [B, h', w', features], and the projected shortcut if asked for, or None."""

    features: int
    kernel_size: int
    dtype: DTypeLike
    stride: int = 1
    proj: tuple[int, int] | None = None  # features and stride of the shortcut

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[
        Float[Array, "batch out_height out_width features"], Float[Array, "batch shortcut_height shortcut_width outputs"] | None
    ]:
        x = nn.relu(GroupNorm(self.dtype, name="group_norm")(x))
        y = StandardizedConv(self.features, self.kernel_size, self.stride, self.dtype, name="standardized_conv2d")(x)
        return y, Projection(*self.proj, self.dtype, name="proj")(x) if self.proj else None


class BottleneckUnit(nn.Module):
    """One residual unit: [B, h, w, I] -> [B, ceil(h / stride), ceil(w / stride), 4 features]."""

    features: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch out_height out_width features"]:
        outputs = EXPANSION * self.features
        changes_shape = self.stride != 1 or x.shape[-1] != outputs
        proj = (outputs, self.stride) if changes_shape else None
        y, shortcut = Step(self.features, 1, self.dtype, proj=proj, name="a")(x)
        y, _ = Step(self.features, 3, self.dtype, stride=self.stride, name="b")(y)
        y, _ = Step(outputs, 1, self.dtype, name="c")(y)
        return y + (x if shortcut is None else shortcut)


class Stage(nn.Module):
    """Units of one width, the first with the stride."""

    num_units: int
    features: int
    stride: int
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch out_height out_width features"]:
        unit_class = nn.remat(BottleneckUnit) if self.remat else BottleneckUnit
        for i in range(self.num_units):
            x = unit_class(self.features, 1 if i else self.stride, self.dtype, name=f"unit{i + 1:02d}")(x)
        return x


class Head(nn.Module):
    """Pooled features [B, C] -> float32 logits [B, K], all `bias_init` at first. A convolution, because the format has one."""

    num_classes: int
    bias_init: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch channels"]) -> Float[Array, "batch classes"]:
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
    """The whole model. `__call__` returns (logits, features by name).

    Attributes:
      num_classes: K, or None for a model without a head, whose "logits" are the pooled features.
      size: units of each stage, and width.
      dtype: of activations and convolutions. Norm statistics, weight standardization, the pooled features and the logits are
        float32 always.
      remat: recompute every unit in the backward pass.
      head_bias_init: the head's kernel starts at zero, its bias at this.
    """

    num_classes: int | None
    size: Size
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    head_bias_init: float = 0.0

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool = False
    ) -> tuple[Float[Array, "batch outputs"], dict[str, Float[Array, "..."]]]:
        """float [B, H, W, 3] in [-1, 1], of any size -> float32 [B, K], and features: root_block [B, H/4, W/4, C_0];
        block1 [B, H/4, W/4, 4 C_0], block2 [B, H/8, W/8, 8 C_0], ... (sizes rounded up); pre_logits [B, C] after the last norm.

        `train` changes nothing: the family has neither dropout nor batch statistics.
        """
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
