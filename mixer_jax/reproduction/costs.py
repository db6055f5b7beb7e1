"""What a row costs, in TPU-v3 core-days: estimates from recorded ones, so that nothing is compiled.

Pre-trainings are in the recorded table of `python -m benchmarks.planning fit`, and fine-tunings on ImageNet, at the sizes of
Tables 2 and 3, in that of `fine_tuning`. An image of another data set costs as much as one of ImageNet of its size. Where
nothing is recorded, the cost of pre-training is the paper's own figure. An image of a fine-tuning then costs what it costs by it,
times the paper's throughput at 224 pixels over the one at its size.
"""

import dataclasses
import functools

from mixer_jax import app
from mixer_jax.planning.estimate import DAY_SECONDS, total_steps
from mixer_jax.planning.recorded import recorded_fine_tuning, recorded_pretraining, recorded_table, recorded_throughput
from mixer_jax.reproduction.exhibit import Row
from mixer_jax.reproduction.fine_tuning import FAMILIES, FineTuning
from mixer_jax.reproduction.paper.figures import FIGURE_3
from mixer_jax.reproduction.paper.tables import TABLE_3
from mixer_jax.reproduction.recipes import Pretraining, model_name, pretraining

PLANNER, PAPER = "planner's estimate", "from the paper's core-days"
BASE_PIXELS = 224


@dataclasses.dataclass(frozen=True)
class Cost:
    """TPU-v3 core-days, and whose figure they come from: PLANNER or PAPER."""

    core_days: float
    basis: str


def pretraining_cost(row: Row, recipe: Pretraining) -> Cost | None:
    """Return the cost of a pre-training, or None if neither the planner nor the paper has one."""
    if recorded := recorded_pretraining(recipe.config):
        return Cost(recorded["core_days"], PLANNER)
    for other in (row, *TABLE_3.rows, *FIGURE_3.rows):
        if "core_days" in other.cells and (other is row or _is_pretrained_by(other, recipe)):
            return Cost(other.cells["core_days"].value, PAPER)
    return None


def fine_tuning_cost(row: Row, recipe: Pretraining, fine_tuning: FineTuning) -> Cost | None:
    """Return the cost of one run of a fine-tuning, or None if it is not known."""
    num_images, pixels = _images(fine_tuning.config, fine_tuning.overrides)
    if recorded := recorded_fine_tuning(model_name(row), pixels):
        return Cost(num_images / recorded["images_per_sec_per_core"] / DAY_SECONDS, PLANNER)
    if not recipe.config or "core_days" not in row.cells or "throughput" not in row.cells:
        return None
    days = row.cells["core_days"].value / _images(recipe.config)[0]
    return Cost(num_images * days * _throughput(row) / row.cells["throughput"].value, PAPER)


def estimated_throughput(row: Row, pixels: int) -> float | None:
    """Return the planner's estimate of inference in images/s/core at this image size, or None if it has none for this row."""
    family, _, variant = model_name(row).partition("-")
    recorded = recorded_throughput(FAMILIES[family], variant, pixels)
    return recorded["estimate"] if recorded else None


def estimated_by() -> str:
    """Return the versions of the compiler that made the recorded estimates."""
    return recorded_table("fit")["estimated_by"]


def _is_pretrained_by(row: Row, recipe: Pretraining) -> bool:
    return bool(recipe.config) and pretraining(row).config == recipe.config


def _throughput(row: Row) -> float:
    """Return the paper's throughput of the row's model at 224 pixels. Without one, return that of the row itself."""
    for other in TABLE_3.rows:
        if model_name(other) == model_name(row) and other.cells["pixels"].value == BASE_PIXELS:
            return other.cells["throughput"].value
    return row.cells["throughput"].value


@functools.cache
def _images(config_file: str, overrides: tuple[str, ...] = ()) -> tuple[int, int]:
    """Return how many images a config trains on, repeats included, and their size in pixels."""
    config = app.read_config(config_file, list(overrides))
    return total_steps(config) * config.batch_size, config.image_size
