"""The answers of a model to the examples of an evaluation: the most likely classes, with their probabilities."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Figures = dict[str, Any]
"""The results of an evaluator by name: numbers, or lists of numbers."""

PROBABILITIES = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}  # The keys are values of config.loss.kind.


@functools.partial(jax.jit, static_argnums=(1, 2))
def most_likely(logits: jax.Array, loss: str, count: int) -> tuple[jax.Array, jax.Array]:
    """Return the probabilities of the `count` most likely classes, float32 [B, count], and these classes, int32 [B, count].

    The logits decide which classes these are, because different logits may have one probability: sigmoid is 1 from 17 on.
    """
    _, classes = jax.lax.top_k(logits, count)
    return jnp.take_along_axis(PROBABILITIES[loss](logits), classes, axis=1), classes


class Answers(NamedTuple):
    """The labels of examples, and the answers of a model to them.

    Attributes:
      labels: int32 [B, M], the numbers of the examples' classes, padded with -1.
      probabilities: float32 [B, T], the probabilities of the most likely classes, the largest first.
      classes: int32 [B, T], the numbers of these classes.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray

    def without_padding(self) -> "Answers":
        """Return the answers with the columns of labels that any example needs. A batch can be padded to thousands."""
        width = int((self.labels >= 0).sum(axis=1).max(initial=0))
        return self._replace(labels=self.labels[:, :width].copy())


def join_answers(batches: Sequence[Answers]) -> Answers:
    """Return the answers of several batches as those of one."""
    width = max(batch.labels.shape[1] for batch in batches)
    labels = [np.pad(batch.labels, ((0, 0), (0, width - batch.labels.shape[1])), constant_values=-1) for batch in batches]
    return Answers(
        np.concatenate(labels),
        np.concatenate([batch.probabilities for batch in batches]),
        np.concatenate([batch.classes for batch in batches]),
    )


class Evaluation(NamedTuple):
    """What an evaluator returns.

    Attributes:
      figures: the figures.
      answers: the answers to all examples in the order of their records, on the process that writes; None if nobody asked for
        them. Examples of padding may follow.
    """

    figures: Figures
    answers: Answers | None = None
