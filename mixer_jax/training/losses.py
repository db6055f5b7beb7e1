"""The two losses, and the targets that labels stand for."""

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
    """Return the targets of labels: 1 at each class of an example and 0 elsewhere. [B, M] -> float32 [B, K].

    Labels are padded with -1, which stands for no class. Hosts send only labels to devices. Devices compute the larger targets.
    """
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32).sum(axis=1)


def sigmoid_loss(logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]) -> Float[Array, " batch"]:
    """Return the binary cross-entropy, summed over classes: -sum_k (t_k log p_k + (1 - t_k) log(1 - p_k)), p = sigmoid(logits).

    The targets t are in [0, 1]. The authors use this loss for ImageNet-21k and JFT, and in their released ImageNet configuration.
    The paper does not name a loss.
    """
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def softmax_loss(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"], label_smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Return the cross-entropy: -sum_k t_k log p_k, p = softmax(logits).

    The targets of an example are scaled so that their sum is 1: its labels share its weight. Label smoothing then replaces t_k by
    (1 - label_smoothing) t_k + label_smoothing / K.
    """
    targets = targets / jnp.maximum(targets.sum(axis=-1, keepdims=True), 1e-9)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def make_eval_loss(kind: str, num_classes: int) -> EvalLoss:
    """Return a function (logits, labels padded with -1) -> loss of each example [B], without label smoothing."""
    loss = make_loss(kind)
    return lambda logits, labels: loss(logits, k_hot(labels, num_classes))


def make_loss(kind: str, label_smoothing: float = 0.0) -> Loss:
    """Return the function (logits, targets) -> loss of each example [B] of this kind, "sigmoid" or "softmax".

    Only "softmax" has label smoothing.
    """
    losses: dict[str, Loss] = {
        "sigmoid": sigmoid_loss,
        "softmax": functools.partial(softmax_loss, label_smoothing=label_smoothing),
    }
    return losses[kind]
