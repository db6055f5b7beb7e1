"""The checks of a config: what the rows of the table say, and what several options must agree on."""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import DATA_FIELDS, DATASET, EVALUATORS, LENGTH, OPTIONS, Option, has_effect
from mixer_jax.errors import UserError

ALLOWED: dict[str, Callable[[Any], bool]] = {
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "at least 2": lambda value: value >= 2,
    "at least 0 and below 2^32": lambda value: 0 <= value < 2**32,
    "above 0": lambda value: value > 0,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "in (0, 1]": lambda value: 0 < value <= 1,
    "a tuple of counts above 0": lambda value: len(value) > 0 and min(value) > 0,
    "a tuple of at least one seed": lambda value: len(value) > 0,
    "a tuple of (pattern, factor >= 0)": lambda value: all(
        isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str) and pair[1] >= 0 for pair in value
    ),
}


def validate(config: ConfigDict) -> None:
    """Check every rule that needs no data and no device.

    Raises UserError that names the option to change and what it must be.
    """
    _check_data("data", config.data)
    _check_rows(OPTIONS, config)
    _require(not config.loader.processes or sys.platform == "linux", "loader.processes", True, "False on any system but Linux")
    divisor = f"a divisor of batch_size={config.batch_size}"
    _require(config.batch_size % config.accumulation_steps == 0, "accumulation_steps", config.accumulation_steps, divisor)
    weights = f"a run's folder or a file of weights, because init_head={config.init_head}"
    _require(config.init_head == "new" or bool(config.init_from), "init_from", config.init_from, weights)
    if config.init_head != "subset":
        _require(not config.init_classes, "init_classes", config.init_classes, "empty, or used with init_head=subset")
    _check_augment(config.augment, config.image_size)
    _check_patterns(config.optimizer)
    for name, evaluator in config.evals.items():
        field = f"evals.{name}"
        _require(evaluator.kind in EVALUATORS, f"{field}.kind", evaluator.kind, f"one of {', '.join(EVALUATORS)}")
        _check_rows(EVALUATORS[evaluator.kind], evaluator, f"{field}.")
        for data in DATA_FIELDS[evaluator.kind]:
            _check_data(f"{field}.{data}", evaluator[data])


def _check_rows(options: Sequence[Option], config: ConfigDict, prefix: str = "") -> None:
    """Check what the rows say about the values in `config`."""
    for option in options:
        field, value = f"{prefix}{option.name}", config[option.name]
        if option.choices:
            _require(value in option.choices, field, value, f"one of {', '.join(option.choices)}")
        if option.allowed:
            _require(ALLOWED[option.allowed](value), field, value, option.allowed)
        if option.unit == LENGTH:
            _check_length(field, value)
        if value != option.default and not has_effect(option, config):
            other, *_ = option.only
            _require(False, field, value, f"{option.default!r} with {other}={config[other]}")


def _check_length(field: str, length: ConfigDict) -> None:
    for unit, value in length.items():
        _require(value >= 0, f"{field}.{unit}", value, "0 (unset) or more")
    count = sum(value > 0 for value in length.values())
    if field == "total" and count != 1:
        raise UserError(
            f"config.total is {length.to_dict()}: exactly one of steps, epochs, examples must be set, for example "
            "--config.total.steps=1000 --config.total.epochs=0 --config.total.examples=0."
        )
    if count > 1:
        raise UserError(
            f"config.{field} is {length.to_dict()}: set one unit and leave the others at 0 (--config.{field}.UNIT=0)."
        )


def _check_data(field: str, data: ConfigDict) -> None:
    _check_rows(DATASET, data, f"{field}.")
    if not data.parts:
        _require(bool(data.source), f"{field}.source", data.source, "a source such as tfds:imagenet2012")
    else:
        _require(not data.source, f"{field}.source", data.source, f"empty with {field}.parts")
        _require(not data.examples_per_class, f"{field}.examples_per_class", data.examples_per_class, "0; its parts may have it")
    for name, part in data.parts.items():
        _require(not part.parts, f"{field}.parts.{name}.parts", part.parts, "empty: a mixture has no mixtures")
        _check_data(f"{field}.parts.{name}", part)


def _check_augment(augment: ConfigDict, image_size: int) -> None:
    aspect, magnitude, size = augment.crop_min_aspect, augment.randaugment_magnitude, augment.resize_size
    bound = f"in (0, crop_max_aspect={augment.crop_max_aspect}]"
    _require(0 < aspect <= augment.crop_max_aspect, "augment.crop_min_aspect", aspect, bound)
    strong = augment.randaugment_layers == 0 or magnitude > 0
    _require(strong, "augment.randaugment_magnitude", magnitude, "above 0 when randaugment_layers is")
    room = f"at least image_size={image_size}, which is cut out of it"
    _require(size == 0 or size >= image_size, "augment.resize_size", size, room)


def _check_patterns(optimizer: ConfigDict) -> None:
    patterns = {f"multipliers {pattern!r}": pattern for pattern, _ in optimizer.multipliers}
    for field, pattern in ({"weight_decay_pattern": optimizer.weight_decay_pattern} | patterns).items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.optimizer.{field} is not a regular expression: {error}") from error


def _require(condition: bool, field: str, value: Any, expected: str) -> None:
    if not condition:
        raise UserError(f"config.{field} is {value!r}: it must be {expected}. Set it with --config.{field}=...")
