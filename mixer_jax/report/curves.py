"""The charts of runs: a chart for each quantity, with all runs on one axis."""

import math
from collections.abc import Callable, Sequence

from mixer_jax.pages.charts import COLORS, LOG_RATIO, Series, line_chart
from mixer_jax.pages.parts import Charts, Part, Text
from mixer_jax.report.runs import Run, display_name, eval_curves, points

TRAINING = "training"  # the name of the training loss beside the losses of the evaluators
# {metric of training: its name on the page}. Each has a chart of its own.
QUANTITIES = {"learning_rate": "Learning rate", "grad_norm": "Gradient norm", "images_per_sec": "Images/s"}


def curves(runs: Sequence[Run]) -> list[Part]:
    """Return charts of loss, top-1 and QUANTITIES, as far as they have been logged.

    With one run, the curves of a chart differ in color. With several runs, a run has the same color everywhere, and an evaluator
    the same dash, as long as there are no more runs than colors.
    """
    if not any(points(run, "loss") for run in runs):
        return [Text("No step has been logged.", is_missing=True)]
    names = list(
        dict.fromkeys(display_name(name) for run in runs for kind in ("top1", "loss") for name in eval_curves(run, kind))
    )
    numbers = {name: i for i, name in enumerate([TRAINING, *names])}

    def series(curves_of: Callable[[Run], dict[str, list]]) -> list[Series]:
        found = [(i, run, name, curve) for i, run in enumerate(runs) for name, curve in curves_of(run).items() if curve]
        if len(runs) == 1:
            return [Series(name, curve, numbers.get(name, 0)) for _, _, name, curve in found]
        with_names = len({name for _, _, name, _ in found}) > 1
        return [
            Series(
                f"{run.label}, {name}" if with_names else run.label,
                curve,
                i,
                i // COLORS + (numbers.get(name, 0) if with_names else 0),
            )
            for i, run, name, curve in found
        ]

    charts = [
        ("Loss", LOG_RATIO, series(lambda run: {TRAINING: points(run, "loss")} | _by_evaluator(run, "loss", 1))),
        ("Evaluation top-1, %", None, series(lambda run: _by_evaluator(run, "top1", 100))),
    ]
    for metric, title in QUANTITIES.items():  # A learning rate may end at 0, where a logarithmic axis has no end.
        charts.append((title, math.inf, series(lambda run, metric=metric, title=title: {title: points(run, metric)})))
    drawn = [line_chart(title, found, log_ratio=log_ratio) for title, log_ratio, found in charts if found]
    return [Charts(drawn, are_wide=len(runs) > 1)]


def _by_evaluator(run: Run, prefix: str, factor: float) -> dict[str, list[tuple[int, float]]]:
    """Return the curves of `eval_curves` by the names on the page, with their values times `factor`."""
    found = eval_curves(run, prefix).items()
    return {display_name(name): [(step, factor * value) for step, value in curve] for name, curve in found}
