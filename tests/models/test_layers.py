"""Layers that families share: what is dropped and how it is scaled, and images that patches tile or do not."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.errors import UserError
from mixer_jax.models.layers import StochasticDepth, num_patches, patchify, stochastic_depth_rate


@pytest.mark.parametrize("num_blocks", [1, 2, 12, 32])
def test_stochastic_depth_rises_linearly_from_0_in_the_first_block_to_s_in_the_last(num_blocks):
    rates = [stochastic_depth_rate(i, num_blocks, 0.1) for i in range(num_blocks)]
    assert rates == pytest.approx(np.linspace(0, 0.1, num_blocks))


@pytest.mark.parametrize(("rescale", "kept", "mean"), [(False, 1.0, 0.75), (True, 4 / 3, 1.0)])
def test_a_dropped_example_is_all_zero_and_a_kept_one_scaled_as_its_convention_says(rescale, kept, mean):
    module = StochasticDepth(rate=0.25, rescale=rescale)
    y = module.apply({}, jnp.ones((8192, 2, 3)), train=True, rngs={"dropout": jax.random.key(0)})
    first = y[:, :1, :1]
    np.testing.assert_array_equal(y, jnp.broadcast_to(first, y.shape))  # one draw an example
    np.testing.assert_allclose(np.unique(first), [0.0, kept], rtol=1e-6)
    assert np.mean(y) == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize(("patch", "height", "width"), [(16, 225, 224), (16, 224, 225), (14, 150, 150), (16, 9, 9), (32, 31, 33)])
def test_an_image_that_patches_do_not_tile_is_refused_and_sizes_that_fit_are_named(patch, height, width):
    with pytest.raises(UserError, match=r"for example \d+ or \d+") as refusal:
        num_patches(height, width, patch)
    fitting = [int(size) for size in re.search(r"for example (\d+) or (\d+)", str(refusal.value)).groups()]
    assert all(size > 0 and size % patch == 0 for size in fitting)
    assert "--config" not in str(refusal.value)  # Models know no flags.


@pytest.mark.parametrize(("patch", "height", "width", "patches"), [(16, 224, 224, 196), (14, 28, 14, 2), (4, 4, 12, 3)])
def test_patches_are_counted_along_both_sides(patch, height, width, patches):
    assert num_patches(height, width, patch) == patches


def test_patches_are_vectors_of_their_pixels_row_by_row():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = patchify(images, 2)
    assert patches.shape == (2, 2, 3, 12) and isinstance(patches, np.ndarray)
    for row, column in np.ndindex(2, 3):
        square = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(patches[:, row, column], square.reshape(2, 12))
    np.testing.assert_array_equal(patchify(images[0], 2), patches[0])
    np.testing.assert_array_equal(patchify(jnp.asarray(images), 2), patches)
    assert patchify(patches, 2) is patches


@pytest.mark.parametrize("channels", [1, 4, 48])
def test_images_without_three_colors_are_refused(channels):
    with pytest.raises(UserError, match=f"3 colors.*not {channels}"):
        patchify(np.zeros((2, 4, 6, channels)), 2)
