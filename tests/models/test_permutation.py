"""Permuted images (section 3.4): what the permutations are, and that every model sees them once, on whichever way images come."""

import functools
import hashlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.models.kernels import for_platform
from mixer_jax.models.layers import patchify, permute_into_rows
from mixer_jax.models.permutation import patch_permutations, permute, pixel_order
from mixer_jax.models.registry import host_transform, make_model, param_shapes
from mixer_jax.models.resnet import ResNet, Size
from mixer_jax.options import PERMUTATIONS, RESNET_PATCH_SIZE

SIDE, PATCH = 32, 8  # 16 patches of 8 x 8 pixels for Mixer and ViT, 4 of 16 x 16 pixels for a ResNet.
PERMUTING = PERMUTATIONS[1:]
every_permutation = pytest.mark.parametrize("permutation", PERMUTING)
every_family = pytest.mark.parametrize("family", ["mixer", "vit", "resnet"])
PATCH_SIZE = {"mixer": PATCH, "vit": PATCH, "resnet": RESNET_PATCH_SIZE}


@pytest.fixture(autouse=True)
def one_implementation():
    with for_platform("cpu"):
        yield


def images(dtype=np.float32) -> np.ndarray:
    pixels = np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    return pixels if dtype == np.uint8 else (pixels / 127.5 - 1).astype(np.float32)


def model_config(family: str, permutation: str) -> ConfigDict:
    config = default_config().model
    sizes = {
        "mixer": {"variant": f"S/{PATCH}", "num_blocks": 2, "hidden_dim": 8, "channels_mlp_dim": 16, "tokens_mlp_dim": 12},
        "vit": {"variant": f"S/{PATCH}", "num_blocks": 2, "hidden_dim": 8, "channels_mlp_dim": 16, "num_heads": 2},
        "resnet": {"variant": "R50x1", "hidden_dim": 32},
    }
    config.update({"family": family, "permutation": permutation} | sizes[family])
    return config


def small_model(family: str, permutation: str) -> nn.Module:
    if family == "resnet":  # The variants that have a name are too deep for a test.
        return ResNet(5, Size(units=(1, 1), base_width=32), permutation=permutation)
    return make_model(model_config(family, permutation), 5)


@functools.cache
def random_params(family: str) -> dict:
    """Return random parameters. None has its initial value 0 or 1."""
    rng = np.random.default_rng(0)
    shapes = param_shapes(small_model(family, "none"), images())
    return jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes)


def logits(model: nn.Module, params: dict, batch: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(model.apply)({"params": params}, batch)[0])


@pytest.mark.parametrize(
    ("permutation", "digest"),
    [
        ("patches_and_pixels", "7250fabaef6f8f089ce1764f9c9f4399c30d2bdc5dfe3d83616b2bb2e6cf0a10"),
        ("all_pixels", "2c3f55a2efd1a7de4504fd57828be75e8c5a3c661e0dee0dee6eb5db65f7eb39"),
    ],
)
def test_the_permutations_of_the_papers_images_never_change_as_the_weights_of_runs_depend_on_them(permutation, digest):
    order = pixel_order(permutation, 224, 224, 16)
    assert hashlib.sha256(order.astype("<i4").tobytes()).hexdigest() == digest


@every_permutation
@pytest.mark.parametrize(("height", "width", "patch"), [(32, 32, 8), (16, 24, 4), (28, 28, 14), (8, 8, 8), (1, 1, 1)])
def test_every_pixel_comes_to_exactly_one_position(permutation, height, width, patch):
    order = pixel_order(permutation, height, width, patch)
    assert sorted(order) == list(range(height * width)) and order.dtype == np.int32
    assert height == 1 or list(order) != sorted(order)


def test_patches_stay_together_and_change_inside_alike():
    """The patch at s is the patch patches[s] of the image, with its pixels in the order `pixels`."""
    pixels, patches = patch_permutations(16, PATCH)
    cut = patchify(images(), PATCH).reshape(3, 16, PATCH**2, 3)
    permuted = patchify(permute(images(), "patches_and_pixels", PATCH), PATCH).reshape(3, 16, PATCH**2, 3)
    np.testing.assert_array_equal(permuted, cut[:, patches][:, :, pixels])
    assert sorted(patches) == list(range(16)) and sorted(pixels) == list(range(PATCH**2))


def test_the_pixels_inside_a_patch_do_not_depend_on_the_size_of_the_image():
    np.testing.assert_array_equal(patch_permutations(196, 16)[0], patch_permutations(784, 16)[0])


@every_permutation
def test_hosts_and_devices_permute_alike_and_colors_stay_together(permutation):
    ours = permute(images(np.uint8), permutation, PATCH)
    np.testing.assert_array_equal(permute(jnp.asarray(images(np.uint8)), permutation, PATCH), ours)
    assert {tuple(pixel) for pixel in ours.reshape(-1, 3)} == {tuple(pixel) for pixel in images(np.uint8).reshape(-1, 3)}


@every_family
@every_permutation
def test_a_permuted_model_is_the_other_one_on_permuted_images_whole_and_as_the_host_sends_them(family, permutation):
    params, model = random_params(family), small_model(family, permutation)
    expected = logits(small_model(family, "none"), params, permute(images(), permutation, PATCH_SIZE[family]))
    np.testing.assert_array_equal(logits(model, params, images()), expected)
    sent = np.stack([host_transform(model_config(family, permutation))(image) for image in images()])
    assert sent.shape != images().shape
    np.testing.assert_array_equal(logits(model, params, sent), expected)
    assert np.abs(expected - logits(small_model(family, "none"), params, images())).max() > 1e-2


@every_family
def test_a_program_permutes_only_whole_images_and_only_if_the_model_has_a_permutation(family):
    def operations(permutation: str, batch: np.ndarray) -> list[str]:
        apply = jax.jit(small_model(family, permutation).apply)
        text = apply.lower({"params": random_params(family)}, batch).as_text()
        return re.findall(r'= "?stablehlo\.(\w+)', text)

    assert "gather" not in operations("none", images())
    assert operations("all_pixels", images()).count("gather") == 1
    sent = [np.stack([host_transform(model_config(family, name))(x) for x in images()]) for name in ("none", "all_pixels")]
    reshape = ["reshape"] if family == "resnet" else []  # Rows become an image again.
    assert sorted(operations("all_pixels", sent[1])) == sorted(operations("none", sent[0]) + reshape)


def test_a_mixer_can_be_reordered_so_that_it_answers_to_permuted_patches_as_before():
    """With the rows of the stem and the tokens of each token-mixing MLP reordered, section 3.4's invariance is an equation."""
    pixels, patches = patch_permutations(16, PATCH)
    params = random_params("mixer")

    def tokens_reordered(mlp: dict) -> dict:
        first, second = mlp["Dense_0"], mlp["Dense_1"]
        return {
            "Dense_0": first | {"kernel": first["kernel"][patches]},
            "Dense_1": {"kernel": second["kernel"][:, patches], "bias": second["bias"][patches]},
        }

    kernel = params["stem"]["kernel"].reshape(PATCH**2, -1)[pixels].reshape(params["stem"]["kernel"].shape)
    reordered = params | {"stem": params["stem"] | {"kernel": kernel}}
    for name in ("MixerBlock_0", "MixerBlock_1"):
        reordered[name] = params[name] | {"token_mixing": tokens_reordered(params[name]["token_mixing"])}
    permuted = logits(small_model("mixer", "patches_and_pixels"), reordered, images())
    np.testing.assert_allclose(permuted, logits(small_model("mixer", "none"), params, images()), rtol=1e-4, atol=1e-4)


def test_rows_that_are_permuted_already_and_images_of_other_forms_are_told_apart():
    rows = permute_into_rows(images(), "all_pixels")
    assert rows.shape == (3, SIDE, 1, 3 * SIDE) and permute_into_rows(rows, "all_pixels") is rows
    with pytest.raises(UserError, match="images of 3 colors, or cut into rows; not 4"):
        permute_into_rows(np.zeros((1, SIDE, SIDE, 4)), "all_pixels")
    with pytest.raises(UserError, match="multiples of 16"):
        permute_into_rows(np.zeros((1, 24, 24, 3)), "patches_and_pixels")


@every_permutation
def test_patches_of_one_pixel_are_refused_because_nobody_sees_whether_they_are_permuted(permutation):
    config = model_config("mixer", permutation)
    config.variant = "S/1"
    with pytest.raises(UserError, match=f"config.model.permutation is '{permutation}'.*need larger patches"):
        make_model(config, 5)
