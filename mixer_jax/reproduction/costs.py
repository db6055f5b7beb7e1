"""What a row costs, in TPU-v3 core-days: estimates from recorded ones, so that nothing is compiled.

For a Mixer, the pre-training is in the recorded table of `python -m benchmarks.planning fit`. An image of a fine-tuning costs
what it costs in that table, times the operations of its size over those of 224 pixels. For ViT and BiT nothing is recorded.
There the cost of pre-training is the paper's own figure. An image of a fine-tuning costs what it costs by that figure, times
the paper's throughput at 224 pixels over the one at its size.
"""

import dataclasses
import functools

from mixer_jax import app
from mixer_jax.planning.estimate import DAY_SECONDS, total_steps
from mixer_jax.planning.recorded import recorded_pretraining, recorded_table
from mixer_jax.reproduction.exhibit import Row
from mixer_jax.reproduction.fine_tuning import FineTuning
from mixer_jax.reproduction.paper.figures import FIGURE_3
from mixer_jax.reproduction.paper.tables import TABLE_1, TABLE_3
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
    if recorded := recorded_pretraining(recipe.config):
        days = 1 / recorded["images_per_sec_per_core"] / DAY_SECONDS
        ratio = mixer_macs(model_name(row), pixels) / mixer_macs(model_name(row), BASE_PIXELS)
        return Cost(num_images * days * ratio, PLANNER)
    if not recipe.config or "core_days" not in row.cells or "throughput" not in row.cells:
        return None
    days = row.cells["core_days"].value / _images(recipe.config)[0]
    return Cost(num_images * days * _throughput(row) / row.cells["throughput"].value, PAPER)


def estimated_throughput(row: Row, pixels: int) -> float | None:
    """Return the planner's estimate of inference in images/s/core at 224 pixels, or None if it has none for this row."""
    family, _, variant = model_name(row).partition("-")
    name = {"Mixer": "mixer", "ViT": "vit", "BiT": "resnet"}[family]
    rows = {recorded["model"]: recorded["estimate"] for recorded in recorded_table("throughput")["rows"]}
    return rows.get(f"{name} {variant}") if pixels == BASE_PIXELS else None


def estimated_by() -> str:
    """Return the versions of the compiler that made the recorded estimates."""
    return recorded_table("fit")["estimated_by"]


def mixer_macs(name: str, pixels: int) -> float:
    """Return the multiply-adds of a Mixer for one image, without the head: stem, and both MLPs of each block.

    At K times 224 pixels the token-mixing MLPs are those of supplement C, with K^2 times the units.
    """
    (row,) = [row for row in TABLE_1.rows if f"Mixer-{row.name}" == name]
    layers, patch, hidden, _, channels_mlp, tokens_mlp, _ = (cell.value for cell in row.cells.values())
    tokens, scale = (pixels // patch) ** 2, (pixels / BASE_PIXELS) ** 2
    block = 2 * tokens * hidden * (tokens_mlp * scale + channels_mlp)
    return tokens * patch**2 * 3 * hidden + layers * block


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
