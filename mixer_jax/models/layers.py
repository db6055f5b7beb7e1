"""Layers that several model families share: pixel normalization, patches, stochastic depth, and the head."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from mixer_jax.errors import UserError
from mixer_jax.models.permutation import Images, permute
from mixer_jax.options import RESNET_PATCH_SIZE


def normalize_pixels(images: Num[Array, "*batch height width channels"]) -> Float[Array, "*batch height width channels"]:
    """Scale pixels from 0..255 to [-1, 1] in float32: x / 127.5 - 1.

    The released weights were trained with this range (code of arXiv 2105.01601). Pixels are uint8, or float32 after mixup.
    """
    return images.astype(jnp.float32) / 127.5 - 1.0


def num_patches(height: int, width: int, patch_size: int) -> int:
    """Return S, the number of patches in a height x width image. Raises UserError if the patch size does not divide a side."""
    if height % patch_size or width % patch_size:
        side = next(side for side in (height, width) if side % patch_size)
        below = max(1, side // patch_size) * patch_size
        raise UserError(
            f"A {height} x {width} image cannot be cut into {patch_size} x {patch_size} patches. Both sides must be multiples of "
            f"{patch_size}, for example {below} or {below + patch_size} in place of {side}."
        )
    return (height // patch_size) * (width // patch_size)


def patchify(images: Images, patch_size: int, permutation: str = "none") -> Images:
    """Cut images into P x P patches: [..., H, W, 3] -> [..., H / P, W / P, P P 3], with the pixels of a patch row by row.

    The pixels are permuted before, if `permutation` is not "none" (permutation.py). The images are a NumPy or a JAX array. Images
    that are already cut into such patches are returned unchanged: they are permuted already.

    The processes that decode images call this too, so that no device has to. It costs them one copy of 150 kB for an image of
    224 x 224 pixels. A TPU would be slow at it: its vectors have 128 lanes, and each pixel has three colors.

    Raises:
      UserError: the images do not have three colors, or P does not divide their sides.
    """
    *batch, height, width, channels = images.shape
    if channels == 3 * patch_size**2:
        return images
    if channels != 3:
        raise UserError(f"The model takes images of 3 colors, or cut into {patch_size} x {patch_size} patches; not {channels}.")
    num_patches(height, width, patch_size)
    rows, columns = height // patch_size, width // patch_size
    images = permute(images, permutation, patch_size)
    patches = images.reshape(*batch, rows, patch_size, columns, patch_size, channels).swapaxes(-4, -3)
    return patches.reshape(*batch, rows, columns, patch_size * patch_size * channels)


def permute_into_rows(images: Images, permutation: str) -> Images:
    """Permute images for a model without patches, and cut them into rows: [..., H, W, 3] -> [..., H, 1, W 3].

    Rows are to such a model what patches are to the others: the form of images that are permuted already, which are returned
    unchanged. The patches that "patches_and_pixels" permutes are of 16 x 16 pixels, as in the paper. Raises UserError if the
    images do not have three colors, or if such patches do not divide them.
    """
    *batch, height, width, channels = images.shape
    if width == 1 and channels != 3:
        return images
    if channels != 3:
        raise UserError(f"The model takes images of 3 colors, or cut into rows; not {channels}.")
    if permutation == "patches_and_pixels":
        num_patches(height, width, RESNET_PATCH_SIZE)
    return permute(images, permutation, RESNET_PATCH_SIZE).reshape(*batch, height, 1, width * channels)


class StochasticDepth(nn.Module):
    """Stochastic depth: drops a residual branch for some examples (Huang et al., arXiv 1603.09382).

    In training, y [B, S, C] -> m y, where m is 0 with probability `rate` and otherwise 1, drawn once per example from the random
    stream "dropout". In evaluation, y -> y.

    There are two conventions. With `rescale`, m y is divided by 1 - rate, so that its expectation is y, as in evaluation (timm,
    scenic). Without `rescale`, evaluation adds the branch in full although training added it only with probability 1 - rate. Our
    configs do the latter by default, because the authors' released Mixer configuration does (big_vision, mlp_mixer_i1k.py): they
    state 76.3 % ImageNet top-1 for it.
    """

    rate: float
    rescale: bool

    @nn.compact
    def __call__(self, y: Float[Array, "batch tokens channels"], *, train: bool) -> Float[Array, "batch tokens channels"]:
        """Return the branch, zeroed for the examples that drop it."""
        if not train or self.rate == 0.0:
            return y
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, (y.shape[0], 1, 1)).astype(y.dtype)
        return y * keep / (1.0 - self.rate) if self.rescale else y * keep


def stochastic_depth_rate(block: int, num_blocks: int, last_rate: float) -> float:
    """Return the probability of dropping a branch of block `block`: last_rate * block / (num_blocks - 1).

    It rises linearly from 0 in the first block to `last_rate` in the last. Both branches of a block have the same probability, as
    in both public codes, big_vision and scenic. The paper (section 3) says that it rises from the first MLP to the last, and a
    block has two MLPs.
    """
    return last_rate * block / max(1, num_blocks - 1)


def zero_init_head(num_classes: int, bias_init: float) -> nn.Dense:
    """Return the layer "head", from pooled features [B, C] to float32 logits [B, K]. All logits are `bias_init` at first.

    Call this inside the `__call__` of a model. The parameters are then the model's.
    """
    return nn.Dense(
        num_classes,
        kernel_init=nn.initializers.zeros,
        bias_init=nn.initializers.constant(bias_init),
        dtype=jnp.float32,
        name="head",
    )
