"""Linear few-shot accuracy of frozen features: ridge regression in closed form.

The paper (section 3, Metrics) names l2-regularized least squares on frozen features, and no more. The protocol here is the
one that its authors' big_vision has now (evaluators/fewshot_lsr.py): features pre_logits of both splits, no augmentation; per
seed, the first k of each class's shuffled records; standardized by the labeled set's mean and deviation; a constant feature of
100 in place of a bias; targets -1 and 1; ridge of strength 2^10; accuracy of the largest output. We report the mean over seeds
and all of them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax.evaluation.predict import Predict
from mixer_jax.parallel import Batch, Params, replicated, to_host

BIAS_FEATURE = 100.0


class FewShot:
    """An evaluator: params -> {"top1_5shot": mean, "top1_5shot_seeds": [...], ..., "examples": number of test examples}."""

    def __init__(
        self,
        options: ConfigDict,
        train: Callable[[Mesh], Iterator[Batch]],
        test: Callable[[Mesh], Iterator[Batch]],
        predict: Predict,
        mesh: Mesh,
    ):
        self._options, self._train, self._test, self._mesh = options, train, test, mesh
        self._features = jax.jit(lambda params, images: predict(params, images)[1], out_shardings=replicated(mesh))

    def __call__(self, params: Params) -> dict[str, Any]:
        train_features, train_labels = self._extract(params, self._train)
        test_features, test_labels = self._extract(params, self._test)
        figures: dict[str, Any] = {"examples": len(test_labels)}
        for shots in self._options.shots:
            accuracies = []
            for seed in self._options.seeds:
                chosen = choose_shots(train_labels, shots, seed)
                predicted = ridge_predict(train_features[chosen], train_labels[chosen], test_features, self._options.l2)
                accuracies.append(float(np.mean(predicted == test_labels)))
            figures[f"top1_{shots}shot"] = float(np.mean(accuracies))
            figures[f"top1_{shots}shot_seeds"] = accuracies
        return figures

    def _extract(self, params: Params, batches: Callable[[Mesh], Iterator[Batch]]) -> tuple[np.ndarray, np.ndarray]:
        """Features, float32 [N, C], and first labels, int32 [N], of all examples that have one; on every process."""
        features, labels = [], []
        for batch in batches(self._mesh):
            first_labels = to_host(batch["labels"])[:, 0]
            counted = (to_host(batch["mask"]) > 0) & (first_labels >= 0)
            features.append(np.asarray(self._features(params, batch["image"]))[counted])
            labels.append(first_labels[counted])
        return np.concatenate(features), np.concatenate(labels)


def choose_shots(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Indices of `shots` records of each class (all of them, where a class has fewer). Sets of one seed are nested."""
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
