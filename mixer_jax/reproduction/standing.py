"""What stands in a cell today: our figure if there is one, the status, the cost that is left, deviations and reasons."""

from collections.abc import Sequence

from mixer_jax.reproduction import costs, texts
from mixer_jax.reproduction.costs import Cost
from mixer_jax.reproduction.exhibit import ACCURACY, PLANNED, SPECIFIED, Cell, Column, Row
from mixer_jax.reproduction.few_shot import few_shot_cell, few_shot_of
from mixer_jax.reproduction.fine_tuning import SHORTER_SIDE, SQUARE, TASKS, FineTuning, fine_tunings, pretraining_job
from mixer_jax.reproduction.recipes import Pretraining, is_cited_model, model_name, pretraining
from mixer_jax.reproduction.runs import FROM_RELEASED, Ours, is_pretrained, ours_of
from mixer_jax.reproduction.setup import RELEASED, Setup
from mixer_jax.reproduction.specifications import model_sizes, recipe_options
from mixer_jax.reproduction.status import (
    CITED,
    DEVIATES,
    DIFFERS,
    ESTIMATE,
    NO_DATA,
    NO_RECIPE,
    NOT_BUILT,
    NOT_STARTED,
    REPRODUCED,
    SAME,
    STARTED,
    Standing,
)

JFT = (
    "JFT-300M is internal to Google. Data of your own can stand in (--config.data.source in the command of the pre-training, or "
    "--data-locations). The cell then deviates."
)
IMAGENET_21K = (
    "ImageNet-21k is handed out by image-net.org after registration. Its present releases have other numbers of classes than the "
    "21 843 of the authors' code (docs/data.md)."
)
IMAGENET = "ImageNet is handed out by image-net.org after registration (docs/data.md)."
JFT_3B = "JFT-3B is internal to Google too. Data of your own can stand in for it."
NOT_PUBLIC = "JFT-300M"
DATA = {"ImageNet": IMAGENET, "ImageNet-21k": IMAGENET_21K, NOT_PUBLIC: JFT}
REAL_REASON = "ReaL's labels are evaluated in the runs of imagenet; they add no training (docs/data.md has the labels)."
NOT_MEASURED = "Estimated by the TPU compiler and not measured."
NO_ESTIMATE = "No estimate is recorded for this model at this image size."
PAPERS_OWN_COST = (
    "The planner's tables lack a part of these runs. The cost of pre-training is then the paper's own figure, and the cost of "
    "fine-tuning follows from it, image by image."
)
NO_COST = "The cost of these runs is not known: the exhibit has no throughput of this model."
VTAB_OF_BASELINES = "ViT's and BiT's protocols for VTAB-1k differ from Mixer's and have no config here."
NOT_RELEASED = "The authors released no weights of this pre-training, and --start=released asks for them."
DEFAULT_PIXELS = {"table2": 448, "figure2": 448}
PIXELS_OF_VIT = {"ViT-L/16": 512, "ViT-H/14": 518}  # the ViT paper's own fine-tuning
PIXELS_OF_BIT = 480  # the BiT paper's own fine-tuning of R152x4


def standing(exhibit: str, row: Row, column: Column, setup: Setup) -> Standing:
    """Return what stands in a cell of the exhibit with this name."""
    cell = row.cells[column.name]
    if column.kind == SPECIFIED:
        return _specified(exhibit, row, column, cell)
    if column.kind == PLANNED:
        return _planned(exhibit, row, column, setup)
    if column.kind == ACCURACY:
        if column.name in TASKS:
            return _fine_tuned(exhibit, row, column, cell, setup)
        return _few_shot(exhibit, row, column, cell, setup)
    return texts.standing(exhibit, row, setup)


def image_size(exhibit: str, row: Row) -> int:
    """Return the image size of a row's fine-tuning, in pixels."""
    if "pixels" in row.cells:
        return int(row.cells["pixels"].value)
    if "[14]" in row.name:
        return PIXELS_OF_VIT.get(model_name(row), 224)
    return PIXELS_OF_BIT if "[22]" in row.name else DEFAULT_PIXELS.get(exhibit, 224)


def why_not_run(row: Row, column: Column, setup: Setup) -> tuple[str, str]:
    """Return the status of a cell whose runs cannot be made, and why, or ("", "") if they can."""
    if column.name not in TASKS:  # All 5-shot accuracies are of models that have a recipe, pre-trained on JFT.
        return (NO_RECIPE, NOT_RELEASED) if setup.start == RELEASED else ("", "")
    recipe = pretraining(row)
    if is_cited_model(row):
        return CITED, recipe.reason
    if not recipe.config:
        return NO_RECIPE, recipe.reason
    if column.name == "vtab" and not row.name.startswith("Mixer"):
        return NO_RECIPE, VTAB_OF_BASELINES
    if setup.start == RELEASED and not recipe.released:
        return NO_RECIPE, NOT_RELEASED
    return "", ""


def fine_tunings_of(exhibit: str, row: Row, column: Column) -> tuple[FineTuning, ...]:
    """Return the fine-tunings whose mean is a cell that can be run."""
    resize = SQUARE if exhibit in DEFAULT_PIXELS and row.name.startswith("Mixer") else SHORTER_SIDE
    return fine_tunings(row, column.name, pretraining(row), image_size(exhibit, row), resize)


def _fine_tuned(exhibit: str, row: Row, column: Column, cell: Cell, setup: Setup) -> Standing:
    status, reason = why_not_run(row, column, setup)
    if reason:
        return Standing(status, reasons=(reason,))
    recipe, runs = pretraining(row), fine_tunings_of(exhibit, row, column)
    commands = tuple(run.sweep(recipe, setup).command for run in runs)
    evaluator = "real" if column.name == "real" else "test"
    reasons = (REAL_REASON,) if column.name == "real" else ()
    ours = ours_of(setup, recipe, runs, evaluator) if setup.has_runs else Ours()
    cost = _cost_left(row, column, recipe, runs, ours)
    if cost is None or cost.basis == costs.PAPER:
        reasons = (*reasons, PAPERS_OWN_COST if cost else NO_COST)
    if ours.value is not None:
        reasons = (*reasons, *dict.fromkeys(filter(None, (run.replaced_data(setup) for run in runs))))
        deviations = ours.deviations if FROM_RELEASED in ours.deviations else (*recipe.deviations, *ours.deviations)
        status = _status(cell, ours.value, deviations)
        left = cost if deviations else None
        return Standing(status, ours.value, sum(ours.finished), left, deviations, reasons, commands, ours.runs)
    status = STARTED if any(ours.finished) else NO_DATA if row.group == NOT_PUBLIC else NOT_STARTED
    more = {STARTED: (ours.reason,), NO_DATA: (JFT,), NOT_STARTED: ()}[status]
    return Standing(status, None, sum(ours.finished), cost, recipe.deviations, (*reasons, *more), commands)


def _cost_left(row: Row, column: Column, recipe: Pretraining, runs: Sequence[FineTuning], ours: Ours) -> Cost | None:
    """Return the cost of the runs of a cell that are not finished, or None if it is not known.

    ReaL's labels are evaluated in the runs of another column and cost no training.
    """
    found = [costs.fine_tuning_cost(row, recipe, run) for run in runs]
    if None in found:
        return None
    finished = ours.finished or (0,) * len(runs)
    left = [max(0, run.num_runs - done) for run, done in zip(runs, finished, strict=True)]
    days = sum(cost.core_days * count for cost, count in zip(found, left, strict=True))
    is_planned = all(cost.basis == costs.PLANNER for cost in found)
    return Cost(0.0 if column.name == "real" else days, costs.PLANNER if is_planned else costs.PAPER)


def _few_shot(exhibit: str, row: Row, column: Column, cell: Cell, setup: Setup) -> Standing:
    """Return what stands in a cell of Figures 2 (right) and 4, whose figures come from inside pre-trainings.

    In Figure 4 one pre-training gives a whole row, whose cost the last cell has.
    """
    status, reason = why_not_run(row, column, setup)
    if reason:
        return Standing(status, reasons=(reason,))
    found = few_shot_cell(exhibit, row, column.name)
    ours = few_shot_of(setup, found) if setup.has_runs else Ours()
    is_counted = exhibit == "figure2" or column.name == list(row.cells)[-1]
    cost = costs.pretraining_cost(found.model, found.whole) if is_counted else None
    if cost and setup.has_runs and is_pretrained(setup, found.recipe):
        cost = Cost(0.0, cost.basis)
    commands = (pretraining_job(found.recipe, setup).command,)
    reasons = tuple(filter(None, (ours.reason,)))
    if ours.value is not None:
        status = _status(cell, ours.value, ours.deviations)
        return Standing(status, ours.value, sum(ours.finished), cost, ours.deviations, reasons, commands, ours.runs)
    if ours.reason:
        return Standing(STARTED, None, sum(ours.finished), cost, (), reasons, commands)
    return Standing(NO_DATA, cost=cost, reasons=(JFT_3B if column.name == "3B" else JFT,), commands=commands)


def _status(cell: Cell, ours: float, deviations: Sequence[str]) -> str:
    """Return the status of a cell that has a figure of ours."""
    agrees = abs(ours - cell.value) <= cell.tolerance
    return DEVIATES if deviations else REPRODUCED if agrees else DIFFERS


def _planned(exhibit: str, row: Row, column: Column, setup: Setup) -> Standing:
    if is_cited_model(row):
        return Standing(CITED, reasons=(pretraining(row).reason,))
    if column.name == "core_days":
        return _pretrained(row, setup)
    estimate = costs.estimated_throughput(row, image_size(exhibit, row))
    if estimate is None:
        return Standing(NOT_BUILT, reasons=(NO_ESTIMATE,))
    return Standing(ESTIMATE, estimate, deviations=(NOT_MEASURED,))


def _pretrained(row: Row, setup: Setup) -> Standing:
    """Return what stands in the cell of a row's core-days, which also has the cost of the pre-training that is left."""
    recipe = pretraining(row)
    cost = costs.pretraining_cost(row, recipe)
    if not recipe.config:
        return Standing(NO_RECIPE, cost=cost, reasons=(recipe.reason,))
    commands = (pretraining_job(recipe, setup).command,)
    reasons = [DATA[row.group]]
    if recipe.released:
        reasons.append(f"Can be left out: {recipe.released} are the authors' weights. What starts from them deviates.")
    is_done = setup.has_runs and is_pretrained(setup, recipe)
    left = Cost(0.0, cost.basis) if is_done else cost
    if cost.basis == costs.PLANNER:
        return Standing(ESTIMATE, cost.core_days, int(is_done), left, (NOT_MEASURED,), tuple(reasons), commands)
    status = STARTED if is_done else NO_DATA if row.group == NOT_PUBLIC else NOT_STARTED
    return Standing(status, None, int(is_done), left, (), (*reasons, PAPERS_OWN_COST), commands)


def _specified(exhibit: str, row: Row, column: Column, cell: Cell) -> Standing:
    ours = (model_sizes(row.name) if exhibit == "table1" else recipe_options(row.group, row.name))[column.name]
    if isinstance(cell.value, str) or isinstance(ours, str):
        return Standing(SAME if ours == cell.value else DIFFERS, ours)
    return Standing(SAME if abs(ours - cell.value) <= cell.tolerance else DIFFERS, ours)
