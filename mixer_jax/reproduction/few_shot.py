"""The linear 5-shot accuracies of Figures 2 (right) and 4, which an evaluator inside a pre-training writes at many steps.

In Figure 2, each cell is a pre-training of its own. On a share of JFT-300M, its figure is that of the best step on the images
that are held out. On all of JFT-300M or JFT-3B, it is that of the last step. In Figure 4, each row is a pre-training, and each
cell is a step of it.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from mixer_jax.options import few_shot_figure
from mixer_jax.records import read_metrics
from mixer_jax.report.forms import check_form
from mixer_jax.reproduction.evidence import evidence_of
from mixer_jax.reproduction.exhibit import Row
from mixer_jax.reproduction.recipes import Pretraining, pretraining
from mixer_jax.reproduction.runs import Ours, deviations_of_evaluator, deviations_of_pretraining
from mixer_jax.reproduction.setup import Setup
from mixer_jax.storage import open_storage, read_json_in
from mixer_jax.sweep.job import recorded_config_of, steps_of

EPOCHS = 7  # of these pre-trainings on all of JFT-300M. The others have as many steps.
JFT_300M = "JFT-300M"
# {column of Figure 2: the data, as the configs name them}. The column 300M is the pre-training of Table 3.
OTHER_DATA = {"9M": "share=3", "30M": "share=10", "91M": "share=30", "3B": "data=jft3b"}
PERMUTATIONS = {  # {row of Figure 4: config.model.permutation}
    "original": "none",
    "patches and pixels permuted": "patches_and_pixels",
    "all pixels permuted": "all_pixels",
}
LAST_COLUMN = "518k"  # of Figure 4: the last step, whichever it is
FEWSHOT, HELD_OUT = "fewshot", "held_out"  # the evaluators
SHOTS, DECIDING = 5, f"{HELD_OUT}/top1"


class FewShotCell(NamedTuple):
    """Where the figure of a cell comes from.

    Attributes:
      model: the model as a row of the pre-trainings on JFT-300M.
      whole: its pre-training on all of JFT-300M without a permutation, which costs as much as the one of the cell.
      recipe: the pre-training of the cell.
      step: the step, or None for the last one.
      is_best: whether the step is the best one on the images that are held out.
    """

    model: Row
    whole: Pretraining
    recipe: Pretraining
    step: int | None
    is_best: bool


def few_shot_cell(exhibit: str, row: Row, column: str) -> FewShotCell:
    """Return where the figure of a cell of Figure 2 (right) or Figure 4 comes from."""
    if exhibit == "figure2":
        whole, data = pretraining(row, EPOCHS), OTHER_DATA.get(column, "")
        recipe = dataclasses.replace(whole, config=f"{whole.config},{data}") if data else whole
        return FewShotCell(row, whole, recipe, None, data.startswith("share="))
    model = dataclasses.replace(row, group=JFT_300M, name=row.group)
    whole, permutation = pretraining(model, EPOCHS), PERMUTATIONS[row.name]
    flags = () if permutation == "none" else (f"--config.model.permutation={permutation}",)
    step = None if column == LAST_COLUMN else 1000 * int(column.removesuffix("k"))
    return FewShotCell(model, whole, dataclasses.replace(whole, flags=flags), step, False)


def few_shot_of(setup: Setup, cell: FewShotCell) -> Ours:
    """Return our figure of a cell. A run of Figure 4 that goes on has those of the steps that it has reached.

    Raises UserError if a file of the run is damaged.
    """
    run = cell.recipe.own_weights(setup)
    if not (recorded := recorded_config_of(run)):
        return Ours()
    reached, last = steps_of(run)
    is_done = reached is not None and reached == last
    step, remark = cell.step, ""
    l2_choice = recorded.evals[FEWSHOT].l2_choice if FEWSHOT in recorded.evals else ""
    name = f"{FEWSHOT}/{few_shot_figure(SHOTS, l2_choice)}"
    accuracies, deciding = _figures_by_step(run, (name, DECIDING))
    if is_done and cell.is_best:
        step = max(accuracies.keys() & deciding.keys(), key=lambda step: (deciding[step], -step), default=None)
        remark = f"Step {step} is the best one on the images that are held out."
    elif is_done and step is None:
        step, remark = last, f"The last step is {last}."
    if step not in accuracies:
        return Ours(None, (int(is_done),), (), _why_none(run, cell, name, step, is_done))
    deviations = deviations_of_pretraining(setup, cell.recipe)
    for evaluator in (FEWSHOT, HELD_OUT) if cell.is_best else (FEWSHOT,):
        deviations += deviations_of_evaluator(setup, cell.recipe, recorded, evaluator)
    record, results = (read_json_in(open_storage(run), name) for name in ("run.json", "results.json"))
    of_this_step = results if step == reached else {}  # The digest of the parameters is that of the last evaluation.
    evidence = evidence_of(run, accuracies[step], record, of_this_step)
    return Ours(100 * accuracies[step], (int(is_done),), tuple(deviations), remark, (evidence,))


def _figures_by_step(run: str, names: Sequence[str]) -> tuple[dict[int, float], ...]:
    """Return {step: figure} of each name. If a figure was written several times at a step, the last counts."""
    rows = [row for row in read_metrics(run) if not row.keys().isdisjoint(names)]
    check_form(f"{run}/metrics.jsonl", rows)
    return tuple({row["step"]: row[name] for row in rows if row.get(name) is not None} for name in names)


def _why_none(run: str, cell: FewShotCell, name: str, step: int | None, is_done: bool) -> str:
    """Return why a run has no figure of this name for a cell."""
    if cell.step is None and not is_done:
        return f"{run} has not ended: the cell has a figure when it has."
    if cell.is_best:
        return f"{run} has no step with both {name} and {DECIDING}."
    return f"{run} has no {name} at step {step}."
