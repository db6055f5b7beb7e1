"""Find the best checkpoint of a run by a figure of an evaluator, record it, print it, and keep it from being deleted.

No state is kept between evaluations. After each evaluation and at each start, the best figure is determined again from
metrics.jsonl, among the steps whose checkpoints exist. The result is therefore correct after the process was killed at any moment
and after the run returned to an earlier checkpoint.
"""

import math
from collections.abc import Collection, Mapping

from tqdm import tqdm

from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.checkpoints.run_paths import BEST, CHECKPOINTS
from mixer_jax.parallel import broadcast_from_writer, is_writer
from mixer_jax.records import MetricWriter
from mixer_jax.storage import read_json, write_json
from mixer_jax.workdir import Workdir

NONE = -1


class BestCheckpoint:
    """The best checkpoint of a run by `figure`, such as "evals.dev.top1". An empty figure means that there is none."""

    def __init__(self, figure: str, run: Workdir, metrics: MetricWriter, checkpoints: Checkpoints):
        self._figure, self._metrics, self._checkpoints = figure, metrics, checkpoints
        self._run, self._file = run, run.path / BEST

    def update(self) -> None:
        """Find the best checkpoint, keep it, and write RUN/best.json, which `--checkpoint=RUN/best` reads.

        All hosts must call this method together.
        """
        values = self._metrics.values(self._figure.removeprefix("evals.").replace(".", "/"))
        step = broadcast_from_writer(find_best(values, self._checkpoints.all_steps(), is_loss=self._figure.endswith(".loss")))
        if step == self._checkpoints.best_step:
            return
        self._checkpoints.best_step = step
        self._checkpoints.finish()  # The checkpoint must be on the disk before best.json names it.
        if is_writer() and step == NONE:
            self._run.remove(BEST)
        elif is_writer():
            self._write(step, values[step])

    def _write(self, step: int, value: float | None) -> None:
        """Write best.json and print the new best, unless best.json says the same already."""
        best = {"figure": self._figure, "value": value, "step": step, "checkpoint": f"{CHECKPOINTS}/{step}"}
        if read_json(self._file) != best:
            write_json(self._file, best)
            tqdm.write(f"Best {self._figure} so far: {value:.4g} at step {step}, kept in {self._run.name}/{CHECKPOINTS}/{step}.")


def find_best(values: Mapping[int, float | None], steps: Collection[int], *, is_loss: bool) -> int:
    """Return the step with the best finite value among `steps`, or NONE if there is none.

    The best loss is the smallest one; the best of other figures is the largest one. Of equal values, the earliest step is best.
    """
    finite = {step: value for step, value in values.items() if step in steps and value is not None and math.isfinite(value)}
    sign = -1 if is_loss else 1
    return max(finite, key=lambda step: (sign * finite[step], -step), default=NONE)
