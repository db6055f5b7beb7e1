"""Permutations of the pixels of an image, the same for all images: the inputs of section 3.4 and Figure 4 of arXiv 2105.01601.

    patches_and_pixels   the patches change their order, and the pixels inside each patch, which is the same for all patches
    all_pixels           all pixels of the image change their order

A pixel keeps its three colors. The paper does not publish its permutations. Ours come from np.random.RandomState(0), whose
numbers NumPy has promised not to change, so that the weights of a run mean the same with every version of NumPy.
"""

import functools
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Int

Images = TypeVar("Images", np.ndarray, jax.Array)
SEED = 0


def permute(images: Images, permutation: str, patch_size: int) -> Images:
    """Return images, [..., H, W, 3], whose pixels are in the order of `pixel_order`. "none" returns the images themselves."""
    if permutation == "none":
        return images
    *batch, height, width, channels = images.shape
    order = pixel_order(permutation, height, width, patch_size)
    pixels = images.reshape(*batch, height * width, channels)
    return pixels.take(order, axis=-2, mode="clip").reshape(images.shape)


@functools.lru_cache(maxsize=8)
def pixel_order(permutation: str, height: int, width: int, patch_size: int) -> Int[np.ndarray, "pixels"]:
    """Return the position of the pixel that comes to each position, int32 [H W]. Positions are counted row by row.

    Args:
      permutation: "patches_and_pixels" or "all_pixels".
      height: H, in pixels.
      width: W, in pixels.
      patch_size: P, in pixels. It divides H and W, if patches are permuted.
    """
    positions = np.arange(height * width, dtype=np.int32)
    if permutation == "all_pixels":
        order = positions[np.random.RandomState(SEED).permutation(height * width)]
    else:
        rows, columns = height // patch_size, width // patch_size
        pixels, patches = patch_permutations(rows * columns, patch_size)
        cut = positions.reshape(rows, patch_size, columns, patch_size).swapaxes(1, 2).reshape(rows * columns, patch_size**2)
        moved = cut[patches][:, pixels].reshape(rows, columns, patch_size, patch_size)
        order = moved.swapaxes(1, 2).reshape(-1)
    order.setflags(write=False)  # The cache gives the same array to all callers.
    return order


def patch_permutations(num_patches: int, patch_size: int) -> tuple[Int[np.ndarray, "pixels"], Int[np.ndarray, "patches"]]:
    """Return the permutation of the P P pixels in each patch, and that of the patches.

    The first one is drawn first, so that it does not depend on the number of patches.
    """
    rng = np.random.RandomState(SEED)
    return rng.permutation(patch_size**2), rng.permutation(num_patches)
