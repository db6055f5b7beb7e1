"""Compares the predictions of two runs, A and B, for the same examples.

An example has the same key in both runs. Keys are names only within the same data, so runs that were evaluated on different data
are refused. So is everything else that would make the figures wrong without a word: a key that two examples have, and an example
whose labels differ. Classes are compared by name, because the runs may number them differently.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixer_jax.classes import Names, has_names, map_classes
from mixer_jax.errors import UserError
from mixer_jax.evaluation.example_predictions import (
    NO_PREDICTIONS,
    ExamplePredictions,
    distinct_labels,
    is_right,
    read_predictions,
)
from mixer_jax.evaluation.paired import PairedCounts
from mixer_jax.mirror import local_files
from mixer_jax.records import PREDICTIONS, predictions_file, read_results
from mixer_jax.storage import open_storage

SUFFIX = ".parquet"
CLASSES = re.compile(r" of \d+ classes \([0-9a-f]+\)$")  # The end of `ExamplePredictions.data`, which depends on the model.
ANEW = (
    "Evaluate both on the same data: python evaluate.py --checkpoint=RUN --config=CONFIG --workdir=OUT writes predictions into "
    "OUT, which can be compared as a run."
)


class Comparison(NamedTuple):
    """The predictions of the runs A and B for N examples that both have and that have a label.

    Attributes:
      a: the predictions of A for these examples.
      b: the predictions of B for the same examples, in the same order.
      truth: whose numbers and names the shown labels have: `a`, or `b` if only B names its classes.
      counts: how many examples both runs have right, only one of them, or none.
      only_a: the indices of the examples that only A has right, those first in which B was most sure of its wrong answer.
      only_b: the indices of the examples that only B has right, those first in which A was most sure of its wrong answer.
      unlabeled: the number of examples without a label, which do not count.
      notes: sentences about the examples and classes for the user.
    """

    a: ExamplePredictions
    b: ExamplePredictions
    truth: ExamplePredictions
    counts: PairedCounts
    only_a: list[int]
    only_b: list[int]
    unlabeled: int
    notes: tuple[str, ...]

    def true_names(self, index: int) -> list[str]:
        """Return the names of the true classes of an example."""
        return [self.truth.class_names[label] for label in self.truth.labels[index] if label >= 0]


class RunComparison(NamedTuple):
    """The comparison of two runs for each evaluator whose predictions both have.

    Attributes:
      runs: the paths or URLs of A and B.
      evaluators: the comparisons by the evaluators' names.
      not_compared: the evaluators whose predictions only one of the runs has.
    """

    runs: tuple[str, str]
    evaluators: dict[str, Comparison]
    not_compared: list[str]


def compare_runs(run_a: str, run_b: str, evaluator: str = "") -> RunComparison:
    """Return the comparison of two runs' folders, or runs in gs://BUCKET/RUN; if there is an `evaluator`, for this one alone.

    Raises UserError if they cannot be compared: no evaluator is common, a file is damaged, or `compare` refuses. Raises
    EnvironmentFault if a bucket does not answer.
    """
    runs = (run_a, run_b)
    found = [evaluators_with_predictions(run) for run in runs]
    names = [name for name in found[0] if name in found[1] and evaluator in ("", name)]
    if not names:
        asked = f" named {evaluator}" if evaluator else ""
        lists = "; ".join(f"{run} has those of {', '.join(those)}" for run, those in zip(runs, found, strict=True))
        raise UserError(f"The runs have no predictions of a common evaluator{asked}: {lists}.")
    files = ["results.json", *(f"{PREDICTIONS}/{name}{SUFFIX}" for name in names)]
    with local_files(run_a, files) as folder_a, local_files(run_b, files) as folder_b:
        comparisons = {name: compare_folders((folder_a, folder_b), name, runs) for name in names}
    return RunComparison(runs, comparisons, sorted(set(found[0]) ^ set(found[1])))


def evaluators_with_predictions(run: str) -> list[str]:
    """Return the names of the evaluators whose predictions are in a run's folder or gs://BUCKET/RUN. Raises UserError if none."""
    names = open_storage(f"{run.rstrip('/')}/{PREDICTIONS}").names()
    evaluators = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and "/" not in name]
    if not evaluators:
        raise UserError(f"{run}: {NO_PREDICTIONS}")
    return evaluators


def compare_folders(folders: Sequence[Path], evaluator: str, names: tuple[str, str]) -> Comparison:
    """Return the comparison of two runs' folders for one evaluator. `names` are those of the runs, for messages.

    Raises UserError for a damaged file, and the errors of `compare`.
    """
    a, b = (read_predictions(predictions_file(folder, evaluator)) for folder in folders)
    try:
        comparison = compare(a, b, names)
    except UserError as error:
        raise UserError(f"The predictions of \u201c{evaluator}\u201d cannot be compared. {error}") from error
    old = [
        f"{name}: the predictions are of step {predictions.step}, and results.json is of other parameters. They are left from an "
        "earlier evaluation."
        for folder, predictions, name in zip(folders, (a, b), names, strict=True)
        if read_results(folder).get("params_sha256", predictions.params_sha256) != predictions.params_sha256
    ]
    return comparison._replace(notes=(*comparison.notes, *old))


def compare(a: ExamplePredictions, b: ExamplePredictions, names: tuple[str, str]) -> Comparison:
    """Return the comparison of two models' predictions. `names` are those of the models, for messages.

    An example is right by the rule of `is_right`, so the accuracies are the top1 of results.json if both have all examples.

    Raises:
      UserError: the data differ, a key occurs twice, an example has different labels, the classes cannot be matched by name, or
        no labeled example is common.
    """
    if CLASSES.sub("", a.data) != CLASSES.sub("", b.data):
        raise UserError(f"They are of different data. {names[0]}: {a.data}. {names[1]}: {b.data}. {ANEW}")
    rows_a, rows_b = _common_rows(a, b, names)
    missing = [
        f"{len(of.keys) - len(rows_a)} examples of {name} are not in {other} and do not count."
        for of, name, other in ((a, *names), (b, *reversed(names)))
        if len(of.keys) > len(rows_a)
    ]
    a, b = _take(a, rows_a), _take(b, rows_b)
    note = _check_labels(a, b, names)
    labeled = np.flatnonzero((a.labels >= 0).any(axis=1))
    unlabeled = len(a.keys) - len(labeled)
    if not len(labeled):
        raise UserError(f"They have no labeled example in common: {len(a.keys)} examples are in both, none with a label. {ANEW}")
    a, b = _take(a, labeled), _take(b, labeled)
    right_a, right_b = is_right(a), is_right(b)
    only_a, only_b = _surest_first(right_a & ~right_b, b), _surest_first(right_b & ~right_a, a)
    both = int((right_a & right_b).sum())
    counts = PairedCounts(both, len(only_a), len(only_b), len(labeled) - both - len(only_a) - len(only_b))
    truth = b if has_names(b.class_names) and not has_names(a.class_names) else a
    return Comparison(a, b, truth, counts, only_a, only_b, unlabeled, (*missing, *([note] if note else [])))


def _common_rows(a: ExamplePredictions, b: ExamplePredictions, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the same examples in `a` and in `b`, found by their keys. Raises UserError for a key used twice."""
    rows = [{key: row for row, key in enumerate(predictions.keys)} for predictions in (a, b)]
    for predictions, row_of, name in zip((a, b), rows, names, strict=True):
        if len(row_of) < len(predictions.keys):
            twice = next(key for row, key in enumerate(predictions.keys) if row_of[key] != row)
            raise UserError(f"In {name}, two examples have the key {twice!r}, so it does not tell which of them is meant. {ANEW}")
    common = [key for key in rows[0] if key in rows[1]]
    found_a, found_b = (np.array([row_of[key] for key in common], np.int64) for row_of in rows)
    return found_a, found_b


def _take(predictions: ExamplePredictions, rows: np.ndarray) -> ExamplePredictions:
    """Return the predictions for the examples with these indices."""
    return predictions._replace(
        records=predictions.records[rows],
        keys=[predictions.keys[row] for row in rows.tolist()],
        labels=predictions.labels[rows],
        classes=predictions.classes[rows],
        probabilities=predictions.probabilities[rows],
    )


def _check_labels(a: ExamplePredictions, b: ExamplePredictions, names: tuple[str, str]) -> str:
    """Return a note on how the classes were matched, or "". `a` and `b` have the same examples.

    Raises UserError if the classes cannot be matched by name, or if an example has different labels.
    """
    named = zip((a, b), names, strict=True)
    (large, large_name), (small, small_name) = sorted(named, key=lambda pair: _rank(pair[0].class_names), reverse=True)
    classes = map_classes(small.class_names, small_name, large.class_names, large_name)
    numbers = np.array([*classes.numbers, -1])  # The label -1 takes the last of these.
    small = small._replace(labels=numbers[small.labels], class_names=large.class_names)
    count = len(large.class_names)
    pairs = [rows * count + labels for rows, labels in map(distinct_labels, (large, small))]
    if len(different := np.unique(np.setxor1d(*pairs) // count)):
        key, texts = a.keys[different[0]], [_labels_text(predictions, different[0]) for predictions in (a, b)]
        raise UserError(
            f"{len(different)} of {len(a.keys)} examples have different labels. For example, {key!r} is {texts[0]} in {names[0]} "
            f"and {texts[1]} in {names[1]}. {ANEW}"
        )
    return classes.note


def _rank(names: Names) -> tuple[int, bool]:
    """Return a larger value for class names that others can be mapped to."""
    return len(names), has_names(names)


def _labels_text(predictions: ExamplePredictions, row: int) -> str:
    return ", ".join(predictions.class_names[label] for label in predictions.labels[row] if label >= 0) or "without a label"


def _surest_first(is_chosen: np.ndarray, wrong: ExamplePredictions) -> list[int]:
    """Return the indices of the chosen examples by the probability of the wrong answer, the highest first, then by key."""
    probabilities = np.nan_to_num(wrong.probabilities[:, 0])
    return sorted(np.flatnonzero(is_chosen).tolist(), key=lambda row: (-probabilities[row], wrong.keys[row]))
