"""Mixup: how much of which partner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.training.mixup import mixup

IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 2, 2, 3)).astype(np.float32)


def shares(p: float, draws: int = 1) -> np.ndarray:
    """What each example keeps of itself, [draws, B], from one-hot targets of which no two are equal."""
    keys = jax.random.split(jax.random.key(0), draws)
    targets = np.asarray(jax.vmap(lambda key: mixup(key, p, jnp.asarray(IMAGES), jnp.eye(4))[1])(keys))
    return np.diagonal(targets, axis1=1, axis2=2)


@pytest.mark.parametrize(("p", "mean"), [(1.0, 3 / 4), (0.5, 1 / 2 + 1 / np.pi), (2.0, 11 / 16)])
def test_the_greater_share_of_a_beta_draw_stays_and_it_is_one_for_the_batch(p, mean):
    """The mean of max(a, 1 - a) is known: 3/4 for a uniform a, 1/2 + 1/pi for the arcsine law, 11/16 for a parabola."""
    kept = shares(p, 8000)
    np.testing.assert_array_equal(kept, kept[:, :1] * np.ones((1, 4), np.float32))
    assert kept.min() >= 0.5
    assert kept.max() <= 1.0
    assert kept[:, 0].mean() == pytest.approx(mean, abs=0.006)


def test_images_and_targets_are_mixed_alike_with_the_example_before():
    one_hot = jnp.eye(4)
    images, targets = (np.asarray(x) for x in mixup(jax.random.key(0), 1.0, jnp.asarray(IMAGES), one_hot))
    a = targets[0, 0]
    assert 0.5 < a < 0.99
    for before, i in zip((3, 0, 1, 2), range(4), strict=True):
        np.testing.assert_allclose(images[i], a * IMAGES[i] + (1 - a) * IMAGES[before], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(targets[i], a * one_hot[i] + (1 - a) * one_hot[before], rtol=1e-5, atol=1e-6)


def test_the_sum_of_all_targets_and_pixels_is_kept():
    labels = jnp.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]], jnp.float32)
    images, targets = mixup(jax.random.key(3), 0.2, jnp.asarray(IMAGES), labels)
    np.testing.assert_allclose(targets.sum(0), labels.sum(0), rtol=1e-6)
    np.testing.assert_allclose(images.sum(0), IMAGES.sum(0), atol=1e-5)
