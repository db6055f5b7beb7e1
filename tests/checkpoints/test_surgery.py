"""Tests of the laws that hold for a change of resolution or classes, with random parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from mixer_jax.checkpoints.manager import signatures
from mixer_jax.checkpoints.surgery import POSITIONS, fit_resolution, interpolate, subset_head, tile_order, tiles, zoom
from mixer_jax.checkpoints.weights import tree_of
from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.models.mixer import SIZES, Mixer, Size
from mixer_jax.models.registry import make_model, param_shapes

SMALL = Size(num_blocks=2, hidden_dim=8, channels_mlp_dim=16, tokens_mlp_dim=5)


def shapes_of(model, side: int) -> dict[str, tuple[int, ...]]:
    shapes = param_shapes(model, jax.ShapeDtypeStruct((1, side, side, 3), np.float32))
    return {"/".join(key.key for key in path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(shapes)}


def random_arrays(model, side: int, scale: float = 0.4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {name: rng.normal(scale=scale, size=shape).astype(np.float32) for name, shape in shapes_of(model, side).items()}


def random_images(batch: int, side: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, (batch, side, side, 3)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def features(model, arrays: dict, images: np.ndarray) -> dict[str, jax.Array]:
    return model.apply({"params": tree_of(arrays)}, images)[1]


def cut(images: np.ndarray, k: int) -> np.ndarray:
    """Return the tiles of images [B, kH, kW, 3] as [B k^2, H, W, 3]: the tiles of an image follow each other, row by row."""
    batch, height, width, channels = images.shape
    tiles = images.reshape(batch, k, height // k, k, width // k, channels).swapaxes(2, 3)
    return tiles.reshape(batch * k**2, height // k, width // k, channels)


@pytest.mark.parametrize(("k", "grid"), [(2, 2), (3, 2), (2, 3), (4, 1)])
def test_at_k_times_the_side_pooled_features_are_the_mean_over_the_tiles(k, grid):
    side = 4 * grid
    small, big = (Mixer(None, 4, size) for size in (SMALL, Size(2, 8, 16, k**2 * 5)))
    arrays, images = random_arrays(small, side), random_images(3, k * side)
    changed = tiles(arrays, k)
    assert {name: x.shape for name, x in changed.items()} == shapes_of(big, k * side)
    each = features(small, arrays, cut(images, k))["pre_logits"].reshape(3, k**2, -1)
    together = features(big, changed, images)["pre_logits"]
    np.testing.assert_allclose(together, each.mean(1), rtol=1e-5, atol=1e-5 * np.abs(each).max())
    assert np.ptp(each, axis=1).min() > 1e-3  # The tiles differ, so their mean is a strong test.


def test_b16_from_224_to_448_keeps_the_law_and_has_the_sizes_of_the_paper():
    size = SIZES["B"]
    small, big = Mixer(None, 16, size), Mixer(None, 16, Size(12, 768, 3072, 4 * 384))
    arrays, images = random_arrays(small, 224, scale=0.05), random_images(1, 448)
    changed = tiles(arrays, 2)
    assert sum(x.size for x in changed.values()) == 86_227_392
    each = features(small, arrays, cut(images, 2))["pre_logits"]
    together = features(big, changed, images)["pre_logits"][0]
    assert np.linalg.norm(together - each.mean(0)) / np.linalg.norm(each.mean(0)) < 1e-5


@pytest.mark.parametrize(("variant", "tokens", "width", "parameters"), [
    ("B/16", 784, 1536, 86_227_392), ("L/16", 784, 2048, 279_475_584), ("H/14", 1024, 2560, 588_442_368),
])  # fmt: skip
def test_448_pixels_with_tiles_of_224_have_the_sizes_of_supplement_c(variant, tokens, width, parameters):
    config = default_config().model
    config.update(variant=variant, tile_size=224)
    shapes = shapes_of(make_model(config, None), 448)
    assert shapes["MixerBlock_0/token_mixing/Dense_0/kernel"] == (tokens, width)
    assert shapes["MixerBlock_0/token_mixing/Dense_1/kernel"] == (width, tokens)
    assert sum(np.prod(shape) for shape in shapes.values()) == parameters


def test_zeros_off_the_diagonal_can_be_learned():
    model = Mixer(3, 2, Size(1, 8, 16, 12))
    changed = tiles(random_arrays(Mixer(3, 2, Size(1, 8, 16, 3)), 4), 2)
    images = jnp.asarray(random_images(4, 8))
    grads = jax.jit(jax.grad(lambda arrays: (model.apply({"params": tree_of(arrays)}, images)[0] ** 2).sum()))(changed)
    for kernel in ("Dense_0", "Dense_1"):
        name = f"MixerBlock_0/token_mixing/{kernel}/kernel"
        zero = changed[name] == 0
        assert zero.mean() == pytest.approx(0.75, abs=0.01) and np.all(np.abs(grads[name])[zero] > 0)


def test_tile_order_lists_each_tile_in_rows():
    assert tile_order(2, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


def test_interpolating_to_the_same_grid_changes_nothing():
    arrays = random_arrays(Mixer(3, 4, SMALL), 12)
    for name, x in interpolate(arrays, 3).items():
        np.testing.assert_array_equal(x, arrays[name])


@pytest.mark.parametrize("new_grid", [1, 2, 3, 5, 8])
def test_an_interpolated_mixer_sees_an_even_image_as_the_old_one_does(new_grid):
    """All tokens are equal, and token mixing returns equal values for them. Only a resizing whose rows sum to 1 passes."""
    model = Mixer(None, 4, SMALL)
    arrays = random_arrays(model, 16)
    for i in range(2):
        name = f"MixerBlock_{i}/token_mixing/Dense_1"
        arrays[f"{name}/bias"][:] = 0.3
        arrays[f"{name}/kernel"][:] = arrays[f"{name}/kernel"][:, :1]
    patch = random_images(1, 4)
    old = features(model, arrays, np.tile(patch, (1, 4, 4, 1)))
    new = features(model, interpolate(arrays, new_grid), np.tile(patch, (1, new_grid, new_grid, 1)))
    np.testing.assert_allclose(new["pre_logits"], old["pre_logits"], rtol=1e-4, atol=1e-5)


def test_an_interpolated_mixer_mixes_a_resized_grid_and_resizes_the_answer():
    arrays = random_arrays(Mixer(3, 4, SMALL), 12)
    changed = interpolate(arrays, 6)
    tokens = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    shrunk = np.asarray(jax.image.resize(tokens, (3, 3), "linear"))
    kernel = "MixerBlock_1/token_mixing/Dense_0/kernel"
    np.testing.assert_allclose(tokens.ravel() @ changed[kernel], shrunk.ravel() @ arrays[kernel], rtol=1e-4, atol=1e-5)
    hidden = np.random.default_rng(1).normal(size=5).astype(np.float32)
    name = "MixerBlock_1/token_mixing/Dense_1"
    old, new = (hidden @ a[f"{name}/kernel"] + a[f"{name}/bias"] for a in (arrays, changed))
    np.testing.assert_allclose(new.reshape(6, 6), jax.image.resize(old.reshape(3, 3), (6, 6), "linear"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("class_token", [True, False])
def test_position_embeddings_are_zoomed_corner_to_corner_and_the_class_token_keeps_its_own(class_token):
    positions = np.random.default_rng(0).normal(size=(1, 9 + class_token, 4)).astype(np.float32)
    arrays = {POSITIONS: positions} | ({"cls": np.zeros((1, 1, 4), np.float32)} if class_token else {})
    changed = zoom(arrays, 5)[POSITIONS]
    assert changed.shape == (1, 25 + class_token, 4) and changed.dtype == np.float32
    np.testing.assert_array_equal(changed[:, :class_token], positions[:, :class_token])
    old, new = positions[0, class_token:].reshape(3, 3, 4), changed[0, class_token:].reshape(5, 5, 4)
    np.testing.assert_allclose(new[::2, ::2], old, rtol=1e-6)  # Of the 5 new points, every second one is an old point.
    np.testing.assert_allclose(new[1::2, ::2], (old[1:] + old[:-1]) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(zoom(arrays, 3)[POSITIONS], positions)


WAYS = {  # Each case is (the old model, its side, the new model, its side, what is printed).
    "tiles": (Mixer(3, 4, SMALL), 8, Mixer(3, 4, Size(2, 8, 16, 20)), 16, "2 x 2 tiles, D_S 5 -> 20 (paper, supplement C)"),
    "the same D_S": (Mixer(3, 4, SMALL), 8, Mixer(3, 4, SMALL), 16, "interpolated (ours, not the paper's)"),
    "between": (Mixer(3, 4, SMALL), 8, Mixer(3, 4, SMALL), 12, "2 x 2 -> 3 x 3 patches"),
    "smaller": (Mixer(3, 4, SMALL), 12, Mixer(3, 4, SMALL), 8, "3 x 3 -> 2 x 2 patches"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_way_is_told_from_the_shapes_and_said(way):
    old, side, new, new_side, what = WAYS[way]
    expected = {name: ("float32", shape) for name, shape in shapes_of(new, new_side).items()}
    changed, said = fit_resolution(random_arrays(old, side), expected)
    assert signatures(changed) == expected
    assert what in said and "\n" not in said


@pytest.mark.parametrize(("tokens_mlp_dim", "side"), [(5, 8), (7, 8), (7, 16), (7, 12)])
def test_what_no_surgery_makes_fit_or_fits_already_comes_back_as_it_was(tokens_mlp_dim, side):
    arrays = random_arrays(Mixer(3, 4, SMALL), 8)
    model = Mixer(3, 4, Size(2, 8, 16, tokens_mlp_dim))
    changed, said = fit_resolution(arrays, {name: ("float32", shape) for name, shape in shapes_of(model, side).items()})
    assert changed is arrays and said == ""


def test_a_subset_of_classes_keeps_their_logits():
    arrays = random_arrays(Mixer(6, 4, SMALL), 8)
    images, classes = jnp.asarray(random_images(2, 8)), [4, 0, 5]
    all_logits, some = (
        Mixer(count, 4, SMALL).apply({"params": jax.tree.map(jnp.asarray, tree_of(a))}, images)[0]
        for count, a in ((6, arrays), (3, subset_head(arrays, classes)))
    )
    np.testing.assert_allclose(some, all_logits[:, classes], rtol=1e-5)
    with pytest.raises(UserError, match="classes 0 to 5; there is no class 6"):
        subset_head(arrays, [1, 6])
    with pytest.raises(UserError, match="these have none"):
        subset_head(random_arrays(Mixer(None, 4, SMALL), 8), [1])


def test_zoom_is_that_of_the_released_code():
    """The released code calls this function with these arguments. This test detects a change of either."""
    positions = np.random.default_rng(0).normal(size=(1, 17, 6)).astype(np.float32)
    expected = scipy.ndimage.zoom(positions[0, 1:].reshape(4, 4, 6), (7 / 4, 7 / 4, 1), order=1).reshape(49, 6)
    changed = zoom({POSITIONS: positions, "cls": np.zeros((1, 1, 6), np.float32)}, 7)[POSITIONS]
    np.testing.assert_array_equal(changed[0, 1:], expected)
