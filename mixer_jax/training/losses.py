"""The two losses, and labels as targets."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

Loss = Callable[[Float[Array, "batch classes"], Float[Array, "batch classes"]], Float[Array, " batch"]]
EvalLoss = Callable[[Float[Array, "batch classes"], Int[Array, "batch labels"]], Float[Array, " batch"]]


def k_hot(labels: Int[Array, "batch labels"], num_classes: int) -> Float[Array, "batch classes"]:
    """Return 1 at each of an example's classes and 0 elsewhere. Labels are padded with -1; targets exist on the device only."""
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32).sum(axis=1)


def sigmoid_loss(logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]) -> Float[Array, " batch"]:
    """Return binary cross-entropy summed over classes; targets are in [0, 1].

    The authors' loss for ImageNet-21k and JFT, and in their released ImageNet configuration (the paper does not name one).
    """
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def softmax_loss(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"], label_smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Return cross-entropy. Targets are scaled to sum to 1, so that a set of labels shares the weight."""
    targets = targets / jnp.maximum(targets.sum(axis=-1, keepdims=True), 1e-9)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def make_eval_loss(kind: str, num_classes: int) -> EvalLoss:
    """Return the loss of each example, (logits, labels padded with -1) -> [B], without label smoothing."""
    loss = make_loss(kind)
    return lambda logits, labels: loss(logits, k_hot(labels, num_classes))


def make_loss(kind: str, label_smoothing: float = 0.0) -> Loss:
    """Return the loss of each example, (logits, targets) -> [B], of `config.loss`."""
    losses: dict[str, Loss] = {
        "sigmoid": sigmoid_loss,
        "softmax": functools.partial(softmax_loss, label_smoothing=label_smoothing),
    }
    return losses[kind]
