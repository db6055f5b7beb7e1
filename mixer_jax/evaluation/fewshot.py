"""The evaluator of linear few-shot accuracy on frozen features: ridge regression in closed form.

The paper (section 3, Metrics) says that this is l2-regularized least squares on frozen features, and gives no details. We use the
protocol that is now in its authors' big_vision (evaluators/fewshot_lsr.py):

    1. The features are pre_logits of images without augmentation, in both splits.
    2. For each seed, the labeled examples of a class are the first k of its shuffled records.
    3. The features are standardized by the mean and the standard deviation of the labeled examples.
    4. A constant feature of 100 takes the place of a bias.
    5. The targets are 1 for an example's class and -1 for the other classes. The strength of the ridge is 2^10.
    6. The prediction is the class with the largest output.

We report the accuracy of each seed, and their mean.

The option l2_choice="best_on_test" chooses the strength as the authors' code of 2021 did, which vmoe and scenic still have. For
each number of shots, it takes that one of 2^-10, 2^-9, ..., 2^19 that has the highest accuracy on the examples to classify. That
code had one seed and several data sets. It ranked the strengths by accuracy on each, and took the one with the best average rank
for all. Here each evaluator chooses for its own data set, as that code would with this one alone, and the mean over the seeds
decides. The figures have names of their own, because the labels of the test data have been used.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax.data.sources.source import Source
from mixer_jax.data.sources.subset import Subset
from mixer_jax.errors import UserError
from mixer_jax.evaluation.answers import Evaluation, Figures
from mixer_jax.evaluation.predict import CheckStop, Predict, never_stop
from mixer_jax.options import BEST_ON_TEST, few_shot_figure
from mixer_jax.parallel import Batch, Params, replicated, to_host

BIAS_FEATURE = 100.0
STRENGTHS = tuple(2.0**power for power in range(-10, 20))  # l2_regs in the authors' code of 2021.
OUTPUTS = 2**22  # Numbers of float64 that are computed at once for several strengths: 32 MiB.

ShotsCheck = Callable[[np.ndarray, np.ndarray], None]
"""A function of (train_labels, test_labels) that raises UserError if a class has too few labeled examples."""


class FewShot:
    """An evaluator that maps parameters to {"top1_5shot": mean, "top1_5shot_seeds": [...], ..., "examples": N}.

    N is the number of test examples that have a label. With l2_choice="best_on_test", the figures are "top1_5shot_best_on_test",
    "top1_5shot_best_on_test_seeds", and "l2_5shot_best_on_test", which is the strength that was chosen.
    """

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
          train: all records from which labeled examples are chosen.
          train_batches: yields the batches of a source that holds the chosen records.
          test_batches: yields the batches of the records to classify.
          predict: the model.
          mesh: the devices that hold the parameters.
          check: raises UserError if a class has too few labeled records.
        """
        self._options, self._train, self._mesh, self._check = options, train, mesh, check
        self._train_batches, self._test_batches = train_batches, test_batches
        self._features = jax.jit(lambda params, images: predict(params, images)[1], out_shardings=replicated(mesh))

    def __call__(self, params: Params, check_stop: CheckStop = never_stop) -> Evaluation:
        """Return the figures of a model with these parameters. `check_stop` is called between batches."""
        all_labels = first_labels(self._train)
        labeled = np.flatnonzero(all_labels >= 0)
        train_labels, shots = all_labels[labeled], max(self._options.shots)
        # The largest set of a seed includes the smaller ones. Only records of the largest sets go through the model: for example,
        # 750 of 47 000 records.
        used = np.unique(np.concatenate([choose_shots(train_labels, shots, seed) for seed in self._options.seeds]))
        chosen_records = Subset(self._train, labeled[used])
        features, _ = self._extract(params, lambda mesh: self._train_batches(chosen_records, mesh), check_stop)
        test_features, test_labels = self._extract(params, self._test_batches, check_stop)
        self._check(train_labels, test_labels)
        figures: Figures = {"examples": len(test_labels)}
        for shots in self._options.shots:
            chosen = [choose_shots(train_labels, shots, seed) for seed in self._options.seeds]
            labeled_sets = [(features[np.searchsorted(used, rows)], train_labels[rows]) for rows in chosen]
            name, l2 = few_shot_figure(shots, self._options.l2_choice), self._options.l2
            if self._options.l2_choice == BEST_ON_TEST:
                l2 = figures[name.replace("top1", "l2")] = best_strength(labeled_sets, test_features, test_labels, check_stop)
            accuracies = []
            for shot_features, shot_labels in labeled_sets:
                check_stop()
                predicted = ridge_predict(shot_features, shot_labels, test_features, l2)
                accuracies.append(float(np.mean(predicted == test_labels)))
            figures[name] = float(np.mean(accuracies))
            figures[f"{name}_seeds"] = accuracies
        return Evaluation(figures)

    def _extract(
        self, params: Params, batches: Callable[[Mesh], Iterator[Batch]], check_stop: CheckStop
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features, float32 [N, C], and first labels, int32 [N], of the examples that have a label, on every process."""
        features, labels = [], []
        for batch in batches(self._mesh):
            check_stop()
            batch_labels = to_host(batch["labels"])[:, 0]
            counted = (to_host(batch["mask"]) > 0) & (batch_labels >= 0)
            features.append(np.asarray(self._features(params, batch["image"]))[counted])
            labels.append(batch_labels[counted])
        return np.concatenate(features), np.concatenate(labels)


@functools.lru_cache(maxsize=8)
def first_labels(source: Source) -> np.ndarray:
    """Return the first label of each record, int32 [N], or -1 for a record without a label.

    Images are read only if the source cannot read labels without them. Because that is slow, the result is cached.
    """
    labels = (source.labels(index) for index in range(len(source)))
    return np.array([classes[0] if classes else -1 for classes in labels], np.int32)


def check_shots(train_labels: np.ndarray, test_labels: np.ndarray, *, shots: int, class_names: Sequence[str], path: str) -> None:
    """Raise UserError unless every class has at least `shots` labeled examples.

    With fewer examples, the name of the figure would promise more shots than were used. A class without labeled examples could
    never be predicted.

    Args:
      train_labels: the labels of the records from which labeled examples are chosen. Labels of -1 do not count.
      test_labels: the labels of the records to classify. Labels of -1 do not count.
      shots: the number of labeled examples that every class needs.
      class_names: the names of the classes, for the message.
      path: the path of the evaluator in the config, for the message.
    """
    train_labels, test_labels = train_labels[train_labels >= 0], test_labels[test_labels >= 0]
    labeled = np.bincount(train_labels, minlength=len(class_names))
    poor = [int(label) for label in np.union1d(train_labels, test_labels) if labeled[label] < shots]
    if poor:
        more = f" and too few of {len(poor) - 1} more classes" if len(poor) > 1 else ""
        raise UserError(
            f"{path}.shots asks for {shots} labeled images of each class, and {path}.train has {labeled[poor[0]]} of "
            f"{class_names[poor[0]]!r}{more}. Name a larger split, or fewer shots: --{path}.shots='(1,)'."
        )


def choose_shots(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Return the indices of `shots` records of each class. For the same seed, a larger set includes all smaller ones."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)])


def ridge_predict(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, l2: float) -> np.ndarray:
    """Return the classes that ridge regression predicts, [M]. All arithmetic is in float64.

    With X the standardized features and Y the targets of -1 and 1, the weights are (X^T X + l2 I)^-1 X^T Y.

    Args:
      features: features of the labeled examples, [N, C].
      labels: their labels, [N].
      test_features: features of the examples to classify, [M, C].
      l2: the strength of the ridge.
    """
    standardize, classes = _standardizer(features), np.unique(labels)
    x, targets = standardize(features), 2.0 * (labels[:, None] == classes) - 1.0
    if len(x) >= x.shape[1]:
        weights = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets)
    else:  # X^T (X X^T + l2 I)^-1 Y is equal, and its system of equations is smaller.
        weights = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(len(x)), targets)
    return classes[np.argmax(standardize(test_features) @ weights, axis=1)]


def best_strength(
    labeled_sets: Sequence[tuple[np.ndarray, np.ndarray]],
    test_features: np.ndarray,
    test_labels: np.ndarray,
    check_stop: CheckStop = never_stop,
) -> float:
    """Return that one of STRENGTHS whose accuracy on the test examples, as a mean over the labeled sets, is highest.

    Of several it is the largest. `labeled_sets` are the features, [N, C], and the labels, [N], that each seed has chosen.
    """
    accuracies = []
    for features, labels in labeled_sets:
        check_stop()
        accuracies.append(ridge_accuracies(features, labels, test_features, test_labels, STRENGTHS))
    mean = np.mean(accuracies, axis=0)
    return STRENGTHS[np.flatnonzero(mean == mean.max())[-1]]


def ridge_accuracies(
    features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray, strengths: Sequence[float]
) -> np.ndarray:
    """Return the accuracy of `ridge_predict` for each of several strengths, [len(strengths)]. All arithmetic is in float64.

    One eigendecomposition serves all strengths: for X^T X = V diag(e) V^T the weights are V diag(1 / (e + l2)) V^T X^T Y. With
    fewer examples than features that of X X^T is smaller, and the weights are X^T V diag(1 / (e + l2)) V^T Y.

    Args:
      features: features of the labeled examples, [N, C].
      labels: their labels, [N].
      test_features: features of the examples to classify, [M, C].
      test_labels: their labels, [M].
      strengths: the strengths of the ridge.
    """
    standardize, classes = _standardizer(features), np.unique(labels)
    x, targets = standardize(features), 2.0 * (labels[:, None] == classes) - 1.0
    if len(x) >= x.shape[1]:
        values, vectors = np.linalg.eigh(x.T @ x)
        basis, projected = vectors, vectors.T @ (x.T @ targets)
    else:
        values, vectors = np.linalg.eigh(x @ x.T)
        basis, projected = x.T @ vectors, vectors.T @ targets
    correct = np.zeros(len(strengths))
    for rows in np.array_split(np.arange(len(test_labels)), 1 + len(test_labels) * len(classes) // OUTPUTS):
        coordinates = standardize(test_features[rows]) @ basis
        for i, l2 in enumerate(strengths):
            outputs = coordinates @ (projected / (values + l2)[:, None])
            correct[i] += np.count_nonzero(classes[np.argmax(outputs, axis=1)] == test_labels[rows])
    return correct / len(test_labels)


def _standardizer(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that standardizes features by the mean and the deviation of these, and appends the constant feature."""
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64) + 1e-5
    return lambda x: np.concatenate([(x - mean) / deviation, np.full((len(x), 1), BIAS_FEATURE)], axis=1)
