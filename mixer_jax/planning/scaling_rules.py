"""Rules by which a recipe's options follow another batch size or another length, each with its source.

For a batch that is k times the recipe's, k below 1:

    SGD    learning_rate k
    Adam   learning_rate sqrt(k), 1 - b1 and 1 - b2 k, eps 1 / sqrt(k), weight_decay sqrt(k) times what it was

Our weight decay is decoupled: a step subtracts learning_rate x weight_decay x parameter (training/optimizer.py). The rules keep
what is subtracted over the same number of images. With SGD, k times the rate in 1/k times the steps does so. With Adam, the
weight decay itself must be sqrt(k) times what it was. Clipping at a norm and SGD's momentum stay as they are.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

BATCH = "typed: --batch-size"
EPOCHS = "typed: --epochs"
LINEAR = "linear scaling rule: Goyal et al. 2017, arXiv 1706.02677, section 2.1"
SQUARE_ROOT = "square root scaling rule of Adam: Malladi et al. 2022, arXiv 2205.10287"
DECAY = (
    "the decay over the same images is kept: ours is learning_rate x weight_decay a step; Wang & Aitchison 2024, arXiv 2405.13698"
)
AVERAGE = "the average is over as many images: Busbridge et al. 2023, arXiv 2307.13813"
SAME_CURVE = "the end of the decay is an absolute learning rate, and is scaled as the peak is"
SAME_IMAGES = "as many images as before"
SAME_SHARE = "the same share of the run as before"
DIGITS = 6  # Significant digits of a scaled number.


@dataclasses.dataclass(frozen=True)
class Change:
    """An option of a config with another value, and the rule behind it with its source."""

    path: str
    value: Any
    rule: str

    @property
    def flag(self) -> str:
        """The flag that makes this change."""
        return f"--config.{self.path}={self.value}"


def batch_changes(config: ConfigDict, batch_size: int) -> Iterator[Change]:
    """Yield the changes for another batch size, without those of lengths. `batch_size` is at most the recipe's."""
    k = batch_size / config.batch_size
    if k == 1:
        return
    optimizer, schedule = config.optimizer, config.schedule
    is_adam = optimizer.name == "adam"
    factor, rule = (math.sqrt(k), SQUARE_ROOT) if is_adam else (k, LINEAR)
    yield Change("batch_size", batch_size, BATCH)
    yield Change("optimizer.learning_rate", _rounded(optimizer.learning_rate * factor), rule)
    if schedule.decay != "constant" and schedule.end_learning_rate:
        yield Change("schedule.end_learning_rate", _rounded(schedule.end_learning_rate * factor), SAME_CURVE)
    if is_adam:
        yield Change("optimizer.b1", _decay(k * (1 - optimizer.b1)), rule)
        yield Change("optimizer.b2", _decay(k * (1 - optimizer.b2)), rule)
        yield Change("optimizer.eps", _rounded(optimizer.eps / factor), rule)
        if optimizer.weight_decay:
            yield Change("optimizer.weight_decay", _rounded(optimizer.weight_decay * factor), DECAY)
    if config.ema_decay:
        yield Change("ema_decay", _decay(1 - config.ema_decay**k), AVERAGE)


def length_changes(config: ConfigDict, batch_size: int, epochs: float, share: float) -> Iterator[Change]:
    """Yield the changes of lengths of training for another batch size and another number of epochs.

    The decay of the learning rate ends with the run, so it needs no change.

    Args:
      config: The recipe.
      batch_size: The images of a step.
      epochs: The new length. 0: the recipe's.
      share: The images of the new run over those of the recipe.
    """
    k = batch_size / config.batch_size
    if epochs and epochs != config.total.epochs:
        yield Change("total.epochs", float(epochs), EPOCHS)
        for unit in ("steps", "examples"):
            if config.total[unit]:
                yield Change(f"total.{unit}", 0, EPOCHS)
    elif k != 1 and config.total.steps:
        yield Change("total.steps", _steps(config.total.steps / k), SAME_IMAGES)
    for unit, length in config.schedule.warmup.items():
        value = length * share / (k if unit == "steps" else 1)
        if length and value != length:
            value = _rounded(value) if unit == "epochs" else _steps(value)
            yield Change(f"schedule.warmup.{unit}", value, SAME_SHARE if share != 1 else SAME_IMAGES)
    lengths = {"checkpoint.every": config.checkpoint.every}
    lengths |= {f"evals.{name}.every": evaluator.every for name, evaluator in config.evals.items()}
    for path, length in lengths.items():
        if k != 1 and length.steps:
            yield Change(f"{path}.steps", _steps(length.steps / k), SAME_IMAGES)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _decay(complement: float) -> float:
    """Return 1 minus a number, of which DIGITS digits are kept."""
    return round(1 - _rounded(complement), 12)


def _steps(value: float) -> int:
    return max(1, round(value))
