"""Top-1, top-5 and loss over every example of a split, each counted exactly once."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mixer_jax.evaluation.predict import CheckStop, Predict, go_on
from mixer_jax.parallel import Batch, Params, replicated

EvalLoss = Callable[[jax.Array, jax.Array], jax.Array]  # (logits [B, K], labels [B, M], padded with -1) -> [B]


def correct_in_top(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """1.0 where one of the k largest logits is among the example's labels. [B, K], int32 [B, M] -> float32 [B].

    With a set of labels and k = 1 this is the ReaL rule (Beyer et al., arXiv 2006.07159).
    """
    _, top = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    return jnp.any(top[:, :, None] == labels[:, None, :], axis=(1, 2)).astype(jnp.float32)


class Classification:
    """An evaluator: params -> {"top1", "top5", "loss", "examples"}. Means over examples, summed by example, not by batch.

    Examples without any label (as some of ReaL's) do not count; where none has one, only "examples" is returned. Where the
    examples have only some of the model's classes (as ImageNet-A has 200 of 1000), these are `present`: top1_among_present and
    top5_among_present take only them for answers. Among five answers or fewer there is no top 5: it would always be right.
    """

    def __init__(
        self,
        batches: Callable[[Mesh], Iterator[Batch]],
        predict: Predict,
        loss: EvalLoss,
        mesh: Mesh,
        present: Sequence[int] | None = None,
    ):
        def top(logits: jax.Array, batch: Batch, num_answers: int, suffix: str = "") -> dict[str, jax.Array]:
            ranks = [k for k in (1, 5) if k == 1 or k < num_answers]
            return {f"top{k}{suffix}": correct_in_top(logits, batch["labels"], k) for k in ranks}

        def sums(params: Params, batch: Batch) -> dict[str, jax.Array]:
            logits, _ = predict(params, batch["image"])
            counted = batch["mask"] * jnp.any(batch["labels"] >= 0, axis=1)
            figures = top(logits, batch, logits.shape[-1]) | {"loss": loss(logits, batch["labels"])}
            if present is not None:
                is_absent = jnp.ones(logits.shape[-1], bool).at[np.array(present)].set(False)
                figures |= top(jnp.where(is_absent[None], -jnp.inf, logits), batch, len(present), "_among_present")
            return {name: jnp.sum(counted * figure) for name, figure in figures.items()} | {"examples": jnp.sum(counted)}

        self._batches, self._mesh = batches, mesh
        self._sums = jax.jit(sums, out_shardings=replicated(mesh))

    def __call__(self, params: Params, check_stop: CheckStop = go_on) -> dict[str, float]:
        sums = []
        for batch in self._batches(self._mesh):
            check_stop()
            sums.append(self._sums(params, batch))
            jax.block_until_ready(sums[-2:-1])  # a step behind: otherwise dozens of batches may wait in the device's memory
        sums = jax.device_get(sums)
        total = {name: float(np.sum([batch[name] for batch in sums], dtype=np.float64)) for name in sums[0]}
        examples = int(total.pop("examples"))
        return {name: value / examples for name, value in total.items() if examples} | {"examples": examples}
