"""Writes the comparison of two runs as figures for programs and as text for people."""

from collections.abc import Sequence
from typing import Any

from mixer_jax.classes import label
from mixer_jax.errors import printable
from mixer_jax.evaluation.comparison import Comparison, RunComparison
from mixer_jax.evaluation.example_predictions import ExamplePredictions
from mixer_jax.evaluation.paired import PairedCounts, bootstrap_interval, difference, mcnemar_p_value
from mixer_jax.text_table import format_table

SCOPE = (
    "The interval and the test say how much the choice of examples may have to do with the difference. They say nothing about "
    "training again with another seed."
)


def better(counts: PairedCounts, confidence: float) -> str | None:
    """Return "a" or "b" for the model that McNemar's exact test finds better at the level 1 - `confidence`, or None."""
    if mcnemar_p_value(counts) > 1 - confidence:
        return None
    return "b" if counts.only_b > counts.only_a else "a"


def comparison_figures(compared: RunComparison, confidence: float) -> dict[str, Any]:
    """Return a comparison as nested dicts and lists that JSON can hold. Accuracies and differences are from 0 to 1."""
    return {
        "a": compared.runs[0],
        "b": compared.runs[1],
        "confidence": confidence,
        "evaluators": {name: _figures(comparison, confidence) for name, comparison in compared.evaluators.items()},
        "not_compared": compared.not_compared,
    }


def _figures(comparison: Comparison, confidence: float) -> dict[str, Any]:
    counts = comparison.counts
    models = {"a": comparison.a, "b": comparison.b}
    return {
        "data": comparison.a.data,
        "examples": counts.examples,
        "unlabeled": comparison.unlabeled,
        **{
            name: {"step": predictions.step, "params_sha256": predictions.params_sha256, "top1": right / counts.examples}
            for (name, predictions), right in zip(models.items(), counts.right, strict=True)
        },
        "right": counts._asdict(),
        "difference": difference(counts),
        "interval": bootstrap_interval(counts, confidence),
        "p_value": mcnemar_p_value(counts),
        "better": better(counts, confidence),
        "notes": comparison.notes,
        "changed": [
            {
                "key": comparison.a.keys[row],
                "right": right,
                "labels": comparison.true_names(row),
                **{name: _answer(predictions, row) for name, predictions in models.items()},
            }
            for right, rows in (("a", comparison.only_a), ("b", comparison.only_b))
            for row in rows
        ],
    }


def _answer(predictions: ExamplePredictions, row: int) -> dict[str, Any]:
    """Return the most likely class of an example and its probability."""
    return {
        "class": predictions.class_names[predictions.classes[row, 0]],
        "probability": float(predictions.probabilities[row, 0]),
    }


def format_comparison(compared: RunComparison, confidence: float, num_shown: int) -> str:
    """Return a comparison as text. Of the examples that changed, `num_shown` in each direction are listed."""
    texts = [_format(compared.runs, name, comparison, confidence, num_shown) for name, comparison in compared.evaluators.items()]
    if compared.not_compared:
        texts.append(f"Not compared, because only one of the runs has the predictions: {', '.join(compared.not_compared)}.")
    return "\n\n\n".join([*texts, SCOPE])


def _format(runs: Sequence[str], evaluator: str, comparison: Comparison, confidence: float, num_shown: int) -> str:
    counts = comparison.counts
    steps = (comparison.a.step, comparison.b.step)
    models = [
        (name, run, step, right, accuracy_text(right, counts))
        for name, run, step, right in zip("AB", runs, steps, counts.right, strict=True)
    ]
    table = [("", "B is right", "B is wrong"), ("A is right", counts.both, counts.only_a)]
    table.append(("A is wrong", counts.only_b, counts.neither))
    unlabeled = f", and {comparison.unlabeled} without a label, which do not count" * bool(comparison.unlabeled)
    title = f"{evaluator}: {counts.examples} examples{unlabeled} ({printable(comparison.a.data, kept='')})"
    return "\n\n".join([
        "\n".join([title, *comparison.notes]),
        format_table([("", "run", "step", "right", "top-1"), *models], "<<>"),
        format_table(table, "<>"),
        f"B - A: {difference_text(counts, confidence)}\n{verdict(counts, confidence)}",
        _changed("A", comparison.only_a, comparison, num_shown),
        _changed("B", comparison.only_b, comparison, num_shown),
    ])  # fmt: skip


def accuracy_text(right: int, counts: PairedCounts) -> str:
    """Return an accuracy in percent."""
    return f"{100 * right / counts.examples:.2f} %"


def difference_text(counts: PairedCounts, confidence: float) -> str:
    """Return the difference of the accuracies in points, its interval, and the p-value."""
    interval = f"{100 * confidence:g} % interval {interval_text(counts, confidence)} (bootstrap)"
    return f"{points_text(difference(counts))} points, {interval}, p = {mcnemar_p_value(counts):.2g} (McNemar, exact)"


def interval_text(counts: PairedCounts, confidence: float) -> str:
    """Return the bootstrap interval in points."""
    return " to ".join(map(points_text, bootstrap_interval(counts, confidence)))


def points_text(share: float) -> str:
    """Return a difference in points with its sign."""
    return f"{100 * share:+.2f}" if share else "0.00"


def verdict(counts: PairedCounts, confidence: float, names: tuple[str, str] = ("A", "B")) -> str:
    """Return a sentence that says which model is better, if the test can tell."""
    level = f"at the level {1 - confidence:.2g}"
    found = better(counts, confidence)
    if found is None:
        return f"These examples do not tell which is better, {level}."
    first, second = names if found == "a" else reversed(names)
    return f"{first} is better than {second}, {level}."


def changed_rows(comparison: Comparison, rows: Sequence[int]) -> list[tuple[str, ...]]:
    """Return (key, true classes, what A says, its probability, what B says, its probability) of examples, as printable texts."""

    def cells(predictions: ExamplePredictions, row: int) -> tuple[str, str]:
        answer = _answer(predictions, row)
        return label(answer["class"]), f"{100 * answer['probability']:.1f} %"

    texts = [
        (
            comparison.a.keys[row],
            ", ".join(map(label, comparison.true_names(row))),
            *cells(comparison.a, row),
            *cells(comparison.b, row),
        )
        for row in rows
    ]
    return [tuple(printable(text, kept="") for text in cells) for cells in texts]


def _changed(name: str, rows: Sequence[int], comparison: Comparison, num_shown: int) -> str:
    shown = rows[:num_shown]
    count = f" ({len(shown)} are shown; --json lists all)" if len(shown) < len(rows) else ""
    title = f"Only {name} is right: {len(rows)}{count}"
    if not shown:
        return title
    header = ("example", "is", "A says", "", "B says", "")
    return f"{title}\n{format_table([header, *changed_rows(comparison, shown)], '<<<><>')}"
