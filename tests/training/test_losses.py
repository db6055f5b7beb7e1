"""The two losses against their definitions, written out in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.training.losses import k_hot, make_eval_loss, make_loss

CLASSES = 5
# int32 [B, M], padded with -1, and the same by hand as [B, K]
LABELS = np.array([[0, -1, -1], [4, 2, -1], [-1, 3, 1], [-1, -1, -1], [0, 1, 4]], np.int32)
TARGETS = np.array([[1, 0, 0, 0, 0], [0, 0, 1, 0, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1]], np.float32)
LOGITS = np.random.default_rng(0).normal(scale=3, size=(5, CLASSES)).astype(np.float32)
SOFT = np.random.default_rng(1).dirichlet(np.ones(CLASSES), 5).astype(np.float32)


def naive_sigmoid(logits, targets):
    p = 1 / (1 + np.exp(-np.float64(logits)))
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(1)


def naive_softmax(logits, targets, smoothing=0.0):
    """Targets as a distribution (none where there is no label), mixed with the uniform one."""
    p = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum(1, keepdims=True)
    targets = targets / np.maximum(1e-9, targets.sum(1, keepdims=True))
    return -(((1 - smoothing) * targets + smoothing / CLASSES) * np.log(p)).sum(1)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_targets_are_1_at_each_label_of_an_example_and_padding_is_no_label(dtype):
    targets = k_hot(jnp.asarray(LABELS.astype(dtype)), CLASSES)
    np.testing.assert_array_equal(targets, TARGETS)
    assert targets.dtype == np.float32


@pytest.mark.parametrize("targets", [TARGETS, SOFT], ids=["sets of labels", "mixed"])
@pytest.mark.parametrize(
    ("kind", "smoothing", "naive"),
    [
        ("sigmoid", 0.0, naive_sigmoid),
        ("softmax", 0.0, naive_softmax),
        ("softmax", 0.1, lambda logits, targets: naive_softmax(logits, targets, 0.1)),
    ],
)
def test_a_loss_of_each_example_is_that_of_its_definition(kind, smoothing, naive, targets):
    losses = make_loss(kind, smoothing)(jnp.asarray(LOGITS), jnp.asarray(targets))
    np.testing.assert_allclose(losses, naive(LOGITS, targets), rtol=1e-5, atol=1e-5)


def test_a_set_of_labels_weighs_as_much_as_one_label_under_softmax_and_more_under_sigmoid():
    zeros = jnp.zeros((2, CLASSES))
    targets = jnp.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]], jnp.float32)
    one, three = np.asarray(make_loss("softmax")(zeros, targets))
    assert one == pytest.approx(three) == pytest.approx(np.log(CLASSES))
    certain = jnp.full((2, CLASSES), -20.0)  # of every class, that it is not there
    one, three = np.asarray(make_loss("sigmoid")(certain, targets))
    assert three == pytest.approx(3 * one, rel=1e-4)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_the_loss_of_an_evaluation_takes_labels_and_does_not_smooth(kind):
    logits, labels, targets = map(jnp.asarray, (LOGITS, LABELS, TARGETS))
    np.testing.assert_array_equal(make_eval_loss(kind, CLASSES)(logits, labels), make_loss(kind)(logits, targets))


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_logits_give_finite_losses_and_gradients(kind, size):
    logits = np.where(np.arange(CLASSES) % 2, size, -size).astype(np.float32) * np.ones((5, 1), np.float32)
    losses, vjp = jax.vjp(lambda logits: make_loss(kind)(logits, jnp.asarray(TARGETS)), jnp.asarray(logits))
    (grads,) = vjp(np.ones(5, np.float32))
    assert np.all(np.isfinite(losses))
    assert np.all(np.isfinite(grads))
    assert np.all(losses >= 0)
