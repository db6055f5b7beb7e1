"""The section that tells whether runs are better than the first one, from the predictions of both for the same examples.

The figures are those of `python -m mixer_jax compare` (evaluation/comparison.py).
"""

import functools
from collections.abc import Sequence

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.evaluation.comparison import Comparison, compare_folders
from mixer_jax.evaluation.comparison_text import SCOPE, accuracy_text, changed_rows, interval_text, points_text, verdict
from mixer_jax.evaluation.example_predictions import ExamplePredictions, is_right
from mixer_jax.evaluation.paired import difference, mcnemar_p_value
from mixer_jax.pages.parts import Folded, Part, Section, Sheet, Table, Text, number
from mixer_jax.records import predictions_file
from mixer_jax.report.answers import example_pictures
from mixer_jax.report.runs import Run
from mixer_jax.report.sections import parts_or_reason

CONFIDENCE = 0.95
ROWS, PICTURES = 10, 12  # Examples in a table of those that changed, and pictures of them, in each direction.
METHOD = (
    "Differences are in points. Their intervals are those of the paired bootstrap, with a confidence of 95 %. The p-values are "
    "those of McNemar\u2019s exact test."
)


def comparison_sections(runs: Sequence[Run], *, pictures: bool) -> list[Section]:
    """Return the section that compares each further run with the first one, or [] if no evaluator has predictions of both.

    Args:
      runs: the runs.
      pictures: whether to open the evaluators' data, and to show images of examples that changed.
    """
    first, *others = runs
    compared, missing = [], []
    for run in others:
        for evaluator in (name for name in first.config.evals if _has_predictions(run, name) and _has_predictions(first, name)):
            try:
                comparison = compare_folders((first.workdir, run.workdir), evaluator, (first.label, run.label))
                compared.append((run, evaluator, comparison))
            except (UserError, OSError) as error:
                missing.append(Text(f"Not shown: {run.label}. {error}", is_missing=True))
    if not compared and not missing:
        return []
    title = f"Is {others[0].label} better than {first.label}?" if len(others) == 1 else f"Which are better than {first.label}?"
    table = [_table(first, compared)] if compared else []
    changes = [part for run, evaluator, comparison in compared for part in _changes(first, run, evaluator, comparison, pictures)]
    return [Section(title, [*table, *missing, *changes])]


def _has_predictions(run: Run, evaluator: str) -> bool:
    return predictions_file(run.workdir, evaluator).exists()


def _table(first: Run, compared: Sequence[tuple[Run, str, Comparison]]) -> Table:
    """Return a table with a row for each run and evaluator."""
    rows = []
    for run, evaluator, comparison in compared:
        counts = comparison.counts
        cells = [
            run.label,
            evaluator,
            *(accuracy_text(right, counts) for right in counts.right),
            points_text(difference(counts)),
            interval_text(counts, CONFIDENCE),
            f"{mcnemar_p_value(counts):.2g}",
            number(counts.only_a),
            number(counts.only_b),
        ]
        rows.append([cell if cell in (run.label, evaluator) else cell.replace("-", "\u2212") for cell in cells])
    header = ("run", "evaluator", f"top-1 of {first.label}", "of the run", "difference", "interval", "p")
    return Table((*header, f"only {first.label} is right", "only the run is right"), rows, [METHOD, SCOPE])


def _changes(first: Run, run: Run, evaluator: str, comparison: Comparison, pictures: bool) -> list[Part]:
    """Return a sentence on which run is better, and the examples that only one has right, which the reader unfolds."""
    parts: list[Part] = [Text(note) for note in comparison.notes]
    directions = (
        (first, comparison.only_a, run, comparison.b),
        (run, comparison.only_b, first, comparison.a),
    )
    for right, rows, wrong, answers in directions:
        if not rows:
            continue
        shown = f" The {ROWS} with the most confident wrong answers:" if len(rows) > ROWS else ""
        parts.append(Text(f"Only {right.label} is right: {number(len(rows))} examples.{shown}"))
        header = ("example", "is", f"{first.label} says", "probability", f"{run.label} says", "probability")
        parts.append(Table(header, changed_rows(comparison, rows[:ROWS])))
        if pictures:
            parts += parts_or_reason(functools.partial(_pictures, wrong, evaluator, answers, rows[:PICTURES]))
    changed = len(comparison.only_a) + len(comparison.only_b)
    text = verdict(comparison.counts, CONFIDENCE, (first.label, run.label))
    return [Text(f"{evaluator}: {text}"), Folded(f"{run.label}, {evaluator}", f"{number(changed)} examples changed", parts)]


def _pictures(wrong: Run, evaluator: str, answers: ExamplePredictions, rows: Sequence[int]) -> list[Part]:
    """Return pictures of examples with the answers of the run that has them wrong."""
    return [Sheet(example_pictures(wrong, evaluator, answers, np.array(rows), ~is_right(answers)))]
