"""Linear few-shot accuracy of frozen features: ridge regression in closed form.

The paper (section 3, Metrics) names l2-regularized least squares on frozen features, and no more. The protocol here is the
one that its authors' big_vision has now (evaluators/fewshot_lsr.py): features pre_logits of both splits, no augmentation; per
seed, the first k of each class's shuffled records; standardized by the labeled set's mean and deviation; a constant feature of
100 in place of a bias; targets -1 and 1; ridge of strength 2^10; accuracy of the largest output. We report the mean over seeds
and all of them.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax.data.sources.source import Source
from mixer_jax.data.sources.subset import Subset
from mixer_jax.errors import UserError
from mixer_jax.evaluation.predict import CheckStop, Predict, go_on
from mixer_jax.parallel import Batch, Params, replicated, to_host

BIAS_FEATURE = 100.0

ShotsCheck = Callable[[np.ndarray, np.ndarray], None]
"""A function of all labels to learn from and of all to predict, which raises UserError if they do not do."""


class FewShot:
    """An evaluator: params -> {"top1_5shot": mean, "top1_5shot_seeds": [...], ..., "examples": number of test examples}."""

    def __init__(
        self,
        options: ConfigDict,
        train: Source,
        train_batches: Callable[[Source, Mesh], Iterator[Batch]],
        test_batches: Callable[[Mesh], Iterator[Batch]],
        predict: Predict,
        mesh: Mesh,
        check: ShotsCheck,
    ):
        """Make the evaluator.

        Args:
          options: the evaluator's part of the config.
          train: the labeled records, all of them.
          train_batches: yields batches of some of them, given as a source.
          test_batches: yields batches of the records to classify.
          predict: the model.
          mesh: where it is.
          check: says whether the labels will do.
        """
        self._options, self._train, self._mesh, self._check = options, train, mesh, check
        self._train_batches, self._test_batches = train_batches, test_batches
        self._features = jax.jit(lambda params, images: predict(params, images)[1], out_shardings=replicated(mesh))

    def __call__(self, params: Params, check_stop: CheckStop = go_on) -> dict[str, Any]:
        all_labels = first_labels(self._train)
        labeled = np.flatnonzero(all_labels >= 0)
        train_labels, shots = all_labels[labeled], max(self._options.shots)
        # The sets of one seed are nested. Only what one of them has goes through the model: 750 of 47 000 records, for example.
        used = np.unique(np.concatenate([choose_shots(train_labels, shots, seed) for seed in self._options.seeds]))
        some = Subset(self._train, labeled[used])
        features, _ = self._extract(params, lambda mesh: self._train_batches(some, mesh), check_stop)
        test_features, test_labels = self._extract(params, self._test_batches, check_stop)
        self._check(train_labels, test_labels)
        figures: dict[str, Any] = {"examples": len(test_labels)}
        for shots in self._options.shots:
            accuracies = []
            for seed in self._options.seeds:
                check_stop()
                chosen = choose_shots(train_labels, shots, seed)
                known = features[np.searchsorted(used, chosen)]
                predicted = ridge_predict(known, train_labels[chosen], test_features, self._options.l2)
                accuracies.append(float(np.mean(predicted == test_labels)))
            figures[f"top1_{shots}shot"] = float(np.mean(accuracies))
            figures[f"top1_{shots}shot_seeds"] = accuracies
        return figures

    def _extract(
        self, params: Params, batches: Callable[[Mesh], Iterator[Batch]], check_stop: CheckStop
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features, float32 [N, C], and first labels, int32 [N], of all examples that have one; on every process."""
        features, labels = [], []
        for batch in batches(self._mesh):
            check_stop()
            firsts = to_host(batch["labels"])[:, 0]
            counted = (to_host(batch["mask"]) > 0) & (firsts >= 0)
            features.append(np.asarray(self._features(params, batch["image"]))[counted])
            labels.append(firsts[counted])
        return np.concatenate(features), np.concatenate(labels)


@functools.lru_cache(maxsize=8)
def first_labels(source: Source) -> np.ndarray:
    """Return the first label of each record, int32 [N], -1 where it has none. Reads no images where the source allows it.

    The labels of a source are read once in a process, as they lie in one record with the image for some.
    """
    labels = (source.labels(index) for index in range(len(source)))
    return np.array([classes[0] if classes else -1 for classes in labels], np.int32)


def check_shots(train_labels: np.ndarray, test_labels: np.ndarray, *, shots: int, class_names: Sequence[str], of: str) -> None:
    """Raise UserError unless every class among the labels has at least `shots` examples to learn from.

    With fewer, the figure would be called that of more shots than it is, or a class could not be answered at all.
    `of` is the evaluator's path, for the message. A label of -1 does not count.
    """
    train_labels, test_labels = train_labels[train_labels >= 0], test_labels[test_labels >= 0]
    labeled = np.bincount(train_labels, minlength=len(class_names))
    poor = [int(label) for label in np.union1d(train_labels, test_labels) if labeled[label] < shots]
    if poor:
        more = f" and too few of {len(poor) - 1} more classes" if len(poor) > 1 else ""
        raise UserError(
            f"{of}.shots asks for {shots} labeled images of each class, and {of}.train has {labeled[poor[0]]} of "
            f"{class_names[poor[0]]!r}{more}. Name a larger split, or fewer shots: --{of}.shots='(1,)'."
        )


def choose_shots(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Return the indices of `shots` records of each class. Sets of one seed are nested."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)])


def ridge_predict(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, l2: float) -> np.ndarray:
    """Classes predicted for [M, C] test features by ridge regression on [N, C] features and [N] labels. In float64."""
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64) + 1e-5

    def prepare(x: np.ndarray) -> np.ndarray:
        return np.concatenate([(x - mean) / deviation, np.full((len(x), 1), BIAS_FEATURE)], axis=1)

    x, classes = prepare(features), np.unique(labels)
    targets = 2.0 * (labels[:, None] == classes) - 1.0
    if len(x) >= x.shape[1]:
        weights = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets)
    else:  # the same weights from the smaller system
        weights = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(len(x)), targets)
    return classes[np.argmax(prepare(test_features) @ weights, axis=1)]
