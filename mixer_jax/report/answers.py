"""The sections about a run's predictions for each example: accuracy by class, confusions, and pictures.

The predictions are those that the last evaluation wrote (evaluation/example_predictions.py). The pictures are read from the
evaluator's data, after a check that these are still the data that were evaluated.
"""

import functools
from collections.abc import Sequence

import numpy as np

from mixer_jax.classes import describe
from mixer_jax.data.sources.subset import Subset
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.errors import UserError
from mixer_jax.evaluation.evaluators import describe_evaluators, open_examples
from mixer_jax.evaluation.example_predictions import (
    NO_PREDICTIONS,
    ExamplePredictions,
    accuracy_by_class,
    confusion_matrix,
    confusions,
    is_right,
    read_predictions,
)
from mixer_jax.pages.charts import class_chart, confusion_chart, histogram
from mixer_jax.pages.parts import Chart, Charts, Part, Picture, Section, Sheet, Table, Text, number
from mixer_jax.pages.pictures import labeled
from mixer_jax.records import predictions_file
from mixer_jax.report.runs import Run, data_text
from mixer_jax.report.sections import parts_or_reason

IMAGES, MISTAKES = 24, 24  # Small pictures fill two rows.
MAX_CLASSES = 30  # With more classes, the worst are charted, and the most frequent confusions are listed.
WORST, CONFUSIONS = 25, 20


def answers_sections(runs: Sequence[Run], *, pictures: bool) -> list[Section]:
    """Return a section for each evaluator whose predictions are in a run's folder, and one about the runs that have none.

    Args:
      runs: the runs.
      pictures: whether to open the evaluators' data, and to show images of them.
    """
    sections, without = [], []
    for run in runs:
        evaluators = [name for name in run.config.evals if predictions_file(run.workdir, name).exists()]
        for name in evaluators:
            title = f"What it answers: {run.label}" + (f", {name}" if len(evaluators) > 1 else "")
            sections.append(Section(title, parts_or_reason(functools.partial(_answers, run, name, pictures=pictures))))
        if not evaluators:
            without.append(run.label)
    if without:
        sections.append(
            Section(f"What it answers: {', '.join(without)}", [Text(f"Not shown: {NO_PREDICTIONS}", is_missing=True)])
        )
    return sections


def _answers(run: Run, evaluator: str, *, pictures: bool) -> list[Part]:
    predictions = read_predictions(predictions_file(run.workdir, evaluator))
    has_label = (predictions.labels >= 0).any(axis=1)
    is_wrong = has_label & ~is_right(predictions)
    intro = (
        f"The parameters of step {number(predictions.step)} classify {number(has_label.sum() - is_wrong.sum())} of the "
        f"{number(has_label.sum())} examples of \u201c{evaluator}\u201d right."
    )
    shown = parts_or_reason(lambda: _pictures(run, evaluator, predictions, has_label, is_wrong))
    if not pictures:
        data = data_text(run.config.evals[evaluator].data)
        shown = [Text(f"Not shown: images. With --pictures, those of {data} are opened, as the config says.", is_missing=True)]
    return [Text(intro), *_by_class(predictions), *shown]


def _by_class(predictions: ExamplePredictions) -> list[Part]:
    """Return the parts about accuracy by class and about the classes that are confused."""
    names = [describe(name) for name in predictions.class_names]
    examples, right = accuracy_by_class(predictions)
    classes = np.flatnonzero(examples)
    accuracies = right[classes] / examples[classes]
    classes = classes[np.argsort(accuracies, kind="stable")]
    shown = classes if len(names) <= MAX_CLASSES else classes[:WORST]

    def chart(title: str) -> Chart:
        return class_chart(title, [names[i] for i in shown], examples[shown].tolist(), right[shown].tolist())

    if len(names) <= MAX_CLASSES:
        return [Charts([chart("Accuracy by class"), confusion_chart("Confusion matrix", names, confusion_matrix(predictions))])]
    rows = [
        (names[true], names[predicted], number(count), f"{100 * count / examples[true]:.0f} %")
        for true, predicted, count in confusions(predictions)[:CONFUSIONS]
    ]
    charts = [
        chart(f"Accuracy by class: the lowest {len(shown)} of {len(classes)}"),
        histogram("Accuracy by class: all", (100 * accuracies).tolist(), "accuracy, %", "classes"),
    ]
    return [
        Charts(charts),
        Text("These classes are confused most often:"),
        Table(("is", "predicted", "examples", "of the class"), rows),
    ]


def _pictures(
    run: Run, evaluator: str, predictions: ExamplePredictions, has_label: np.ndarray, is_wrong: np.ndarray
) -> list[Part]:
    """Return a random sample of examples with their answers, and the mistakes with the highest probabilities."""
    rows = np.random.default_rng(0).permutation(np.flatnonzero(has_label))[:IMAGES]  # Data may be sorted by class.
    mistakes = np.flatnonzero(is_wrong)
    mistakes = mistakes[np.argsort(-predictions.probabilities[mistakes, 0], kind="stable")][:MISTAKES]
    shown = example_pictures(run, evaluator, predictions, np.concatenate([rows, mistakes]), is_wrong)
    sample = (
        f"These {len(rows)} examples were drawn at random and are shown as the evaluator sees them. Wrong predictions, which are "
        f"marked \u2717: {is_wrong[rows].sum()}."
    )
    parts: list[Part] = [Text(sample), Sheet(shown[: len(rows)])]
    if not len(mistakes):
        return [*parts, Text("There is no mistake.")]
    return [*parts, Text("The most confident mistakes, with the probabilities of the wrong classes:"), Sheet(shown[len(rows) :])]


def example_pictures(
    run: Run, evaluator: str, predictions: ExamplePredictions, rows: np.ndarray, is_wrong: np.ndarray
) -> Sequence[Picture]:
    """Return pictures of the examples in these rows. Raises UserError if the data are not those that were evaluated."""
    config = run.config.copy_and_resolve_references()
    config.unlock().evals = {evaluator: run.config.evals[evaluator]}
    opened = open_examples(config, predictions.class_names, str(run.workdir))
    if (now := describe_evaluators(config, opened)[evaluator]["data"]) != predictions.data:
        raise UserError(f"the data are others than those that were evaluated: {predictions.data} then, {now} now.")
    examples = opened[evaluator]["data"]
    source = Subset(examples.source, predictions.records[rows])
    (batch,) = eval_batches(source, examples.transform, examples.loader, batch_size=len(rows), batch_indices=np.arange(len(rows)))
    names = [describe(name) for name in predictions.class_names]

    def show(image: np.ndarray, row: int) -> Picture:
        truth = ", ".join(names[label] for label in predictions.labels[row] if label >= 0)
        if not is_wrong[row]:
            return labeled(image, truth)
        return labeled(image, truth, names[predictions.classes[row, 0]], f"{predictions.probabilities[row, 0]:.0%}")

    return tuple(show(image, row) for image, row in zip(batch["image"], rows.tolist(), strict=True))
