"""What is the Mixer's own beside its equations: its symmetry under permutations of tokens, and one number of them only."""

import functools

import jax
import numpy as np
import pytest

from mixer_jax.errors import UserError
from mixer_jax.models.mixer import Mixer, Size
from mixer_jax.models.registry import param_shapes

SMALL = Size(num_blocks=2, hidden_dim=8, channels_mlp_dim=16, tokens_mlp_dim=12)


def small_mixer(**changes) -> Mixer:
    return Mixer(**({"num_classes": 5, "patch_size": 4, "size": SMALL} | changes))


def random_images(batch: int = 4, size: int = 12) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)


def random_params(model: Mixer, images: np.ndarray) -> dict:
    """Parameters of which none is at its initial zero or one."""
    rng = np.random.default_rng(0)
    shapes = param_shapes(model, images)
    return jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def apply(model: Mixer, params: dict, images: np.ndarray) -> tuple[jax.Array, dict[str, jax.Array]]:
    return model.apply({"params": params}, images)


def test_the_order_of_tokens_means_nothing_but_through_the_token_mixing_parameters():
    model, images = small_mixer(), random_images()
    params = random_params(model, images)
    order = np.random.default_rng(0).permutation(9)

    patches = images.reshape(4, 3, 4, 3, 4, 3).swapaxes(2, 3).reshape(4, 9, 4, 4, 3)
    permuted = patches[:, order].reshape(4, 3, 3, 4, 4, 3).swapaxes(2, 3).reshape(images.shape)
    relabelled = jax.tree.map(np.copy, params)
    for block in ("MixerBlock_0", "MixerBlock_1"):
        dense_0, dense_1 = (relabelled[block]["token_mixing"][name] for name in ("Dense_0", "Dense_1"))
        dense_0["kernel"] = dense_0["kernel"][order]
        dense_1["kernel"], dense_1["bias"] = dense_1["kernel"][:, order], dense_1["bias"][order]

    logits, _ = apply(model, params, images)
    assert not np.allclose(apply(model, params, permuted)[0], logits, atol=1e-2)
    np.testing.assert_allclose(apply(model, relabelled, permuted)[0], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [8, 16])
def test_another_number_of_tokens_than_the_parameters_mix_is_refused_with_a_word_on_surgery(size):
    model = small_mixer()
    params = random_params(model, random_images(size=12))
    with pytest.raises(UserError, match=r"mix 9\b.*12 x 12.*surgery"):
        apply(model, params, random_images(size=size))
