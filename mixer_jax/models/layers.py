"""What several model families need around or inside their own blocks, and pixels to numbers."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num

from mixer_jax.errors import UserError

Images = TypeVar("Images", np.ndarray, jax.Array)


def normalize_pixels(images: Num[Array, "*batch height width channels"]) -> Float[Array, "*batch height width channels"]:
    """Scale pixels from 0..255 to [-1, 1], the range of the released weights (arXiv 2105.01601, code), in float32.

    They are uint8 or, after mixup, float32.
    """
    return images.astype(jnp.float32) / 127.5 - 1.0


def num_patches(height: int, width: int, patch_size: int) -> int:
    """S, how many patches a height x width image is cut into. Raises UserError when they do not tile it."""
    if height % patch_size or width % patch_size:
        side = next(side for side in (height, width) if side % patch_size)
        below = max(1, side // patch_size) * patch_size
        raise UserError(
            f"A {height} x {width} image cannot be cut into {patch_size} x {patch_size} patches. Both sides must be multiples of "
            f"{patch_size}, for example {below} or {below + patch_size} in place of {side}."
        )
    return (height // patch_size) * (width // patch_size)


def patchify(images: Images, patch_size: int) -> Images:
    """Each P x P patch as one vector, its pixels row by row: [..., H, W, 3] -> [..., H / P, W / P, P P 3].

    Of NumPy's arrays and of JAX's. What is cut already is returned as it is. Raises UserError for images that have not three
    colours, and as num_patches does.

    The processes that decode images cut them too (registry.host_transform). That is a copy of 150 kB for them; for a TPU, whose
    vectors have 128 lanes, three colours are the worst thing to rearrange.
    """
    *batch, height, width, channels = images.shape
    if channels == 3 * patch_size**2:
        return images
    if channels != 3:
        raise UserError(f"The model takes images of 3 colours, or cut into {patch_size} x {patch_size} patches; not {channels}.")
    num_patches(height, width, patch_size)
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(*batch, rows, patch_size, columns, patch_size, channels).swapaxes(-4, -3)
    return patches.reshape(*batch, rows, columns, patch_size * patch_size * channels)


class StochasticDepth(nn.Module):
    """Drops a residual branch for whole examples (Huang et al., arXiv 1603.09382), with randomness from the "dropout" stream.

    y [B, S, C] -> m y in training, with m in {0, 1} drawn once an example, P(m = 0) = rate. Otherwise y itself.

    There are two conventions. With `rescale`, a kept branch is divided by 1 - rate, so that its expectation is that of
    evaluation (timm, scenic). Without, it is kept as it is and evaluation adds all branches in full. The default of our configs
    is without: it is what the authors' own released Mixer configuration does (big_vision, mlp_mixer_i1k.py), and the one whose
    76.3 % ImageNet top-1 they state.
    """

    rate: float
    rescale: bool

    @nn.compact
    def __call__(self, y: Float[Array, "batch tokens channels"], *, train: bool) -> Float[Array, "batch tokens channels"]:
        if not train or self.rate == 0.0:
            return y
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, (y.shape[0], 1, 1)).astype(y.dtype)
        return y * keep / (1.0 - self.rate) if self.rescale else y * keep


def stochastic_depth_rate(block: int, num_blocks: int, last_rate: float) -> float:
    """Return the rate of a block's branches, linear from 0 in the first block to `last_rate` in the last.

    The paper (section 3) says from the first MLP to the last, and a block has two. In both public codes, big_vision and scenic,
    the rate goes by block, and both branches of a block have the same; so it is here.
    """
    return last_rate * block / max(1, num_blocks - 1)


def zero_init_head(num_classes: int, bias_init: float) -> nn.Dense:
    """Pooled features [B, C] -> float32 logits [B, K], all `bias_init` at first. Call it inside a model: its name is "head"."""
    return nn.Dense(
        num_classes,
        kernel_init=nn.initializers.zeros,
        bias_init=nn.initializers.constant(bias_init),
        dtype=jnp.float32,
        name="head",
    )
