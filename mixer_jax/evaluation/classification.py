"""The evaluator of top-1 accuracy, top-5 accuracy and loss, which counts every example of a split exactly once."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mixer_jax.evaluation.answers import Answers, Evaluation, join_answers, most_likely
from mixer_jax.evaluation.example_predictions import TOP_CLASSES
from mixer_jax.evaluation.predict import CheckStop, Predict, never_stop
from mixer_jax.parallel import Batch, Params, is_writer, replicated

EvalLoss = Callable[[jax.Array, jax.Array], jax.Array]
"""A function from logits [B, K] and labels [B, M], which are padded with -1, to the loss of each example [B]."""


def correct_in_top(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Return whether one of the k largest logits is among the example's labels, as 1.0 or 0.0.

    For several labels per example and k = 1, this is the rule of ReaL (Beyer et al., arXiv 2006.07159).

    Args:
      logits: [B, K].
      labels: int32 [B, M], padded with -1.
      k: the number of answers for each example. If it is larger than K, all classes are answers.

    Returns:
      float32 [B].
    """
    _, top = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    return jnp.any(top[:, :, None] == labels[:, None, :], axis=(1, 2)).astype(jnp.float32)


class Classification:
    """An evaluator that maps parameters to {"top1", "top5", "loss", "examples"}.

    Each figure is a mean over examples, not over batches, so that a smaller last batch does not weigh more. "examples" is the
    number of examples counted.

    Examples without a label do not count. Some of ReaL's examples have none. If no example has a label, only "examples" is
    returned.

    If the examples have only some of the model's classes, `present` has the numbers of these. ImageNet-A, for example, has 200 of
    1000 classes. The additional figures top1_among_present and top5_among_present accept only these classes as answers.

    A top-5 figure is left out if there are at most five possible answers, because it would always be 1.

    With `answered_loss`, the evaluator also returns its answers to all examples: the TOP_CLASSES most likely classes of all that
    the model has, with the probabilities that belong to this loss ("softmax" or "sigmoid").
    """

    def __init__(
        self,
        batches: Callable[[Mesh], Iterator[Batch]],
        predict: Predict,
        loss: EvalLoss,
        mesh: Mesh,
        present: Sequence[int] | None = None,
        answered_loss: str = "",
    ):
        def top_accuracies(logits: jax.Array, batch: Batch, num_answers: int, suffix: str = "") -> dict[str, jax.Array]:
            ranks = [k for k in (1, 5) if k == 1 or k < num_answers]
            return {f"top{k}{suffix}": correct_in_top(logits, batch["labels"], k) for k in ranks}

        def compute(params: Params, batch: Batch) -> tuple[dict[str, jax.Array], Answers | None]:
            logits, _ = predict(params, batch["image"])
            counted = batch["mask"] * jnp.any(batch["labels"] >= 0, axis=1)
            figures = top_accuracies(logits, batch, logits.shape[-1]) | {"loss": loss(logits, batch["labels"])}
            if present is not None:
                is_absent = jnp.ones(logits.shape[-1], bool).at[np.array(present)].set(False)
                present_logits = jnp.where(is_absent[None], -jnp.inf, logits)
                figures |= top_accuracies(present_logits, batch, len(present), "_among_present")
            sums = {name: jnp.sum(counted * figure) for name, figure in figures.items()} | {"examples": jnp.sum(counted)}
            if not answered_loss:
                return sums, None
            return sums, Answers(batch["labels"], *most_likely(logits, answered_loss, min(TOP_CLASSES, logits.shape[-1])))

        self._batches, self._mesh, self._returns_answers = batches, mesh, bool(answered_loss)
        self._compute = jax.jit(compute, out_shardings=replicated(mesh))

    def __call__(self, params: Params, check_stop: CheckStop = never_stop) -> Evaluation:
        """Return the figures of a model with these parameters. `check_stop` is called between batches."""
        sums: list[dict[str, jax.Array]] = []
        answers: list[Answers] = []  # Only the last of them is on the devices.
        keeps_answers = self._returns_answers and is_writer()
        for batch in self._batches(self._mesh):
            check_stop()
            batch_sums, batch_answers = self._compute(params, batch)
            # Wait for the batch before this one. Without it, dozens of batches could pile up in the device's memory.
            jax.block_until_ready(sums[-1:])
            answers[-1:] = map(_to_host, answers[-1:])
            sums.append(batch_sums)
            answers += [batch_answers] if keeps_answers else []
        answers[-1:] = map(_to_host, answers[-1:])
        sums = jax.device_get(sums)
        total = {name: float(np.sum([batch[name] for batch in sums], dtype=np.float64)) for name in sums[0]}
        examples = int(total.pop("examples"))
        figures = {name: value / examples for name, value in total.items() if examples} | {"examples": examples}
        return Evaluation(figures, join_answers(answers) if answers else None)


def _to_host(answers: Answers) -> Answers:
    """Return the answers to a batch from the devices."""
    return jax.device_get(answers).without_padding()
