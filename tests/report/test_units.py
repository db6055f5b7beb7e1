"""Units as images: which weights they are, their frequency by known waves, and pairs that were planted."""

from itertools import pairwise

import numpy as np
import pytest

from mixer_jax.checkpoints.weights import load_weights
from mixer_jax.errors import UserError
from mixer_jax.report.units import pair_units, spatial_frequency, stem_filters, token_kernel, token_mixing_units


def wave(cycles, phase=0.0, side=8):
    return np.cos(2 * np.pi * cycles * np.arange(side) / side + phase)[:, None] * np.ones(side)


def test_units_are_the_columns_of_the_token_mixing_kernels(whole_run):
    arrays = load_weights(str(whole_run)).arrays
    kernel = arrays["MixerBlock_0/token_mixing/Dense_0/kernel"]
    units = token_mixing_units(arrays)
    assert units.shape == (6, 4, 4)
    np.testing.assert_array_equal(units[2], [kernel[row : row + 4, 2] for row in (0, 4, 8, 12)])
    other = token_mixing_units(arrays | {token_kernel(1): kernel + 1}, 1)
    np.testing.assert_allclose(other, units + 1, rtol=1e-6)


def test_filters_of_the_stem_have_the_pixels_of_a_patch_in_their_order(whole_run):
    arrays = load_weights(str(whole_run)).arrays
    filters = stem_filters(arrays)
    assert filters.shape == (8, 2, 2, 3)
    for channel, row, column, color in ((0, 1, 0, 2), (7, 0, 1, 0)):
        assert filters[channel, row, column, color] == arrays["stem/kernel"][row, column, color, channel]


@pytest.mark.parametrize("read", [token_mixing_units, stem_filters])
def test_a_model_without_token_mixing_is_refused(read):
    with pytest.raises(UserError, match="no token-mixing MLP"):
        read({"stem/kernel": np.zeros((2, 2, 3, 8)), "embedding/kernel": np.zeros((2, 2, 3, 8))})


def test_a_block_that_there_is_not_and_patches_that_form_no_square_are_refused():
    arrays = {token_kernel(block): np.zeros((16, 4)) for block in range(2)}
    with pytest.raises(UserError, match="2 token-mixing MLPs, 0 to 1, and none with the number 2"):
        token_mixing_units(arrays, 2)
    with pytest.raises(UserError, match="8 patches do not form a square"):
        token_mixing_units({token_kernel(0): np.zeros((8, 4))})


def test_frequency_rises_with_cycles_and_does_not_depend_on_scale_or_phase():
    frequencies = spatial_frequency(np.stack([wave(cycles) for cycles in range(5)]))
    np.testing.assert_allclose(frequencies, np.arange(5) / 8, atol=1e-12)
    np.testing.assert_allclose(spatial_frequency(np.stack([wave(2), -3 * wave(2), wave(2, 0.7)])), 2 / 8)
    assert spatial_frequency(np.zeros((1, 8, 8))) == 0


def test_the_frequency_of_a_filter_is_the_mean_over_its_colors_by_energy():
    colored = np.stack([wave(1), 2 * wave(3), 0 * wave(0)], axis=-1)
    np.testing.assert_allclose(spatial_frequency(colored[None]), (1 * 1 + 4 * 3) / (1 + 4) / 8)


def test_units_go_from_low_to_high_frequency_each_with_its_inverse():
    units = np.stack([wave(3), wave(1), -2 * wave(3), -wave(0), 5 * wave(0), -wave(1, 0.1)])
    pairs = pair_units(units)
    assert [set(pair.units) for pair in pairs] == [{3, 4}, {1, 5}, {0, 2}]
    np.testing.assert_allclose([pair.frequency for pair in pairs], [0, 1 / 8, 3 / 8], atol=1e-12)
    np.testing.assert_allclose([pair.cosine for pair in pairs], [-1, -np.cos(0.1), -1])


def test_the_most_opposite_pair_is_taken_first_whatever_its_frequency():
    """The constant unit is nearer to the inverse of the wave than to any other, but the wave's own inverse is nearer still."""
    constant, inverse, rest = -wave(0), -wave(1), wave(2)
    units = np.stack([constant, wave(1) + 0.5 * wave(0), inverse, rest])
    assert {frozenset(pair.units) for pair in pair_units(units)} == {frozenset({1, 2}), frozenset({0, 3})}


def test_an_odd_unit_stays_alone_and_none_is_lost():
    rng = np.random.default_rng(0)
    pairs = pair_units(np.concatenate([rng.normal(size=(6, 4, 4)), np.zeros((1, 4, 4))]))
    assert sorted(i for pair in pairs for i in pair.units) == list(range(7))
    assert [len(pair.units) for pair in pairs] == [2, 2, 2, 1]


def test_the_640_units_of_h_14_are_all_paired():
    kernel = np.random.default_rng(0).normal(size=(256, 640)).astype(np.float32)
    pairs = pair_units(token_mixing_units({token_kernel(0): kernel}))
    assert sorted(i for pair in pairs for i in pair.units) == list(range(640))
    assert all(first.frequency <= second.frequency for first, second in pairwise(pairs))
