"""The two losses, and labels as targets."""

import jax
import jax.numpy as jnp
import optax


def k_hot(labels: jax.Array, num_classes: int) -> jax.Array:
    """int32 [B, M], padded with -1 -> float32 [B, K], 1 at each of an example's classes. Rows of K exist on the device only."""
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32).sum(axis=1)


def sigmoid_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross-entropy summed over classes: [B, K], [B, K] in [0, 1] -> [B].

    The authors' loss for ImageNet-21k and JFT, and in their released ImageNet configuration (the paper does not name one).
    """
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def softmax_loss(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy: [B, K], [B, K] -> [B]. Targets are scaled to sum to 1, so that a set of labels shares the weight."""
    targets = targets / jnp.maximum(targets.sum(axis=-1, keepdims=True), 1e-9)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def make_eval_loss(kind: str, num_classes: int):
    """(logits [B, K], int32 labels [B, M]) -> [B], without label smoothing."""
    loss = make_loss(kind)
    return lambda logits, labels: loss(logits, k_hot(labels, num_classes))


def make_loss(kind: str, label_smoothing: float = 0.0):
    """(logits [B, K], targets [B, K]) -> [B], for `config.loss`."""
    return {
        "sigmoid": sigmoid_loss,
        "softmax": lambda logits, targets: softmax_loss(logits, targets, label_smoothing),
    }[kind]
