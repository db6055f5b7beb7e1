"""Checks a config: the bounds in the rows of the table of options, and the rules that several options must meet together."""

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.bucket import SCHEME, is_in_bucket
from mixer_jax.environment import check_environment, check_script
from mixer_jax.errors import UserError
from mixer_jax.options import (
    DATA_FIELDS,
    DATASET,
    EVALUATORS,
    LENGTH,
    OPTIONS,
    RESNET_PATCH_SIZE,
    Option,
    few_shot_figure,
    has_effect,
)

INTERVAL = re.compile(r"in ([\[(])(-?\d+)(?:\^(\d+))?, (\d+)(?:\^(\d+))?([\])])$")
UNITS = {"steps": "in [0, 2^31)", "epochs": "in [0, 10^6]", "examples": "in [0, 2^50]"}  # The bounds of a `config.duration`.
# {kind of evaluator: function from (evaluator, number of classes) to the names of the figures that can choose a checkpoint}
FIGURES: dict[str, Callable[[ConfigDict, int], tuple[str, ...]]] = {
    "classification": lambda _, num_classes: ("top1", *(["top5"] if num_classes > 5 else []), "loss"),
    "fewshot": lambda evaluator, _: tuple(few_shot_figure(shots, evaluator.l2_choice) for shots in evaluator.shots),
}
NAME = re.compile(r"[\w-]+")  # Names of evaluators and of a mixture's parts stand in paths, names of metrics, and flags.


def validate(config: ConfigDict) -> None:
    """Check the environment variables, and every rule for options that needs no data and no device.

    Raises UserError that names the option, or the environment variable, and says what it must be.
    """
    check_environment()
    _check_data("data", config.data)
    _check_rows(OPTIONS, config)
    _require(not config.loader.processes or sys.platform == "linux", "loader.processes", True, "False on any system but Linux")
    if config.loader.processes:
        check_script()
    divisor = f"a divisor of batch_size={config.batch_size}"
    _require(config.batch_size % config.accumulation_steps == 0, "accumulation_steps", config.accumulation_steps, divisor)
    weights = f"a run's folder or a file of weights, because init_head={config.init_head}"
    _require(config.init_head == "new" or bool(config.init_from), "init_from", config.init_from, weights)
    if config.init_head != "subset":
        _require(not config.init_classes, "init_classes", config.init_classes, "empty, or used with init_head=subset")
    is_in_bucket(config.compilation_cache)  # It refuses other kinds of storage.
    has_steps = config.schedule.decay != "steps" or bool(config.schedule.step_shares)
    _require(has_steps, "schedule.step_shares", config.schedule.step_shares, "such as (0.3, 0.6, 0.9) with schedule.decay=steps")
    if config.model.family == "resnet" and config.model.permutation == "patches_and_pixels":
        multiple = f"a multiple of {RESNET_PATCH_SIZE} with model.family=resnet and model.permutation=patches_and_pixels"
        _require(config.image_size % RESNET_PATCH_SIZE == 0, "image_size", config.image_size, multiple)
    _check_augment(config.augment, config.image_size)
    _check_patterns(config.optimizer)
    for name, evaluator in config.evals.items():
        _check_evaluator(name, evaluator, config.image_size)
    if config.checkpoint.best:
        _check_best(config.checkpoint.best, config.evals, config.num_classes)


def allows(allowed: str, value: Any) -> bool:
    """Return whether a value is allowed by `Option.allowed`: a number in an interval, or a tuple of such numbers.

    NaN is in no interval.
    """
    match = INTERVAL.search(allowed)
    assert match, f"{allowed} is no interval"
    left, low, low_power, high, high_power, right = match.groups()
    least, most = int(low) ** int(low_power or 1), int(high) ** int(high_power or 1)

    def is_inside(number: Any) -> bool:
        if not isinstance(number, int | float) or isinstance(number, bool):
            return False
        return least <= number <= most and (left == "[" or number != least) and (right == "]" or number != most)

    if allowed.startswith("different numbers"):
        whole = all(isinstance(number, int) and is_inside(number) for number in value)
        return whole and 0 < len(value) == len(set(value))
    if allowed.startswith("increasing numbers"):
        return all(map(is_inside, value)) and all(one < other for one, other in itertools.pairwise(value))
    if allowed.startswith("pairs"):
        pairs = [pair for pair in value if isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)]
        return len(pairs) == len(value) and all(is_inside(factor) for _, factor in pairs)
    return is_inside(value)


def bounded(allowed: str, kind: type = int) -> Callable[[str], Any]:
    """Return a function for argparse's `type=`, which turns text into a number and refuses it if `allows` does.

    `kind` is the type of the number.
    """

    def number(text: str) -> Any:
        value = kind(text)
        if not allows(allowed, value):
            raise argparse.ArgumentTypeError(f"{text} must be {allowed}")
        return value

    return number


def _check_rows(options: Sequence[Option], config: ConfigDict, prefix: str = "") -> None:
    """Raise UserError for a value in `config` that its row does not allow, or that has no effect and is not the default.

    `prefix` is the path of `config` in the whole config, for messages.
    """
    for option in options:
        field, value = f"{prefix}{option.name}", config[option.name]
        _require(value is not None, field, value, "`dataset(...)`" if option.default is None else f"such as {option.default!r}")
        if option.choices:
            _require(value in option.choices, field, value, f"one of {', '.join(option.choices)}")
        if option.allowed:
            _require(allows(option.allowed, value), field, value, option.allowed)
        if option.unit == LENGTH:
            _check_length(field, value)
    for option in options:
        value = config[option.name]
        if value != option.default and not has_effect(option, config):
            other, *_ = option.only
            _require(False, f"{prefix}{option.name}", value, f"{option.default!r} with {other}={config[other]}")


def _check_length(field: str, length: ConfigDict) -> None:
    """Raise UserError unless at most one unit of a `duration` is set, exactly one for the option `total`, within its bounds."""
    for unit, value in length.items():
        _require(allows(UNITS[unit], value), f"{field}.{unit}", value, f"{UNITS[unit]} (0: unset)")
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


def _check_evaluator(name: str, evaluator: ConfigDict, image_size: int) -> None:
    """Raise UserError if an evaluator has an unknown kind, an option that is not allowed, or data that are not allowed."""
    field = f"evals.{name}"
    _check_name("evals", name)
    _require(evaluator.kind in EVALUATORS, f"{field}.kind", evaluator.kind, f"one of {', '.join(EVALUATORS)}")
    _check_rows(EVALUATORS[evaluator.kind], evaluator, f"{field}.")
    _check_resize_size(f"{field}.resize_size", evaluator.resize_size, image_size)
    for data_field in DATA_FIELDS[evaluator.kind]:
        _check_data(f"{field}.{data_field}", evaluator[data_field])


def _check_best(best: str, evals: ConfigDict, num_classes: int) -> None:
    """Raise UserError unless `best` is a figure of an evaluator that also runs before the end of training."""
    figures = {
        f"evals.{name}.{figure}": name
        for name, evaluator in evals.items()
        for figure in FIGURES[evaluator.kind](evaluator, num_classes)
    }
    _require(best in figures, "checkpoint.best", best, f"one of {', '.join(figures)}" if figures else "empty without evaluators")
    path = f"config.evals.{figures[best]}"
    if not any(evals[figures[best]].every.values()):
        raise UserError(
            f"config.checkpoint.best is {best!r}, and {path}.every is unset: the model is evaluated only at the end, so there is "
            f"one checkpoint to choose from. Set --{path}.every.steps=..., or --config.checkpoint.best=''."
        )


def _check_name(field: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(f"config.{field}: the name {name!r} must be of letters, digits, _ and -, for example validation_2.")


def _check_data(field: str, data: ConfigDict) -> None:
    """Raise UserError unless `data`, at the path `field`, is a dataset with a source or a mixture of such datasets."""
    _check_rows(DATASET, data, f"{field}.")
    if not data.parts:
        _require(bool(data.source), f"{field}.source", data.source, "a source such as tfds:imagenet2012")
        is_prepared_by_tfds = data.source.startswith(("tfds:", "vtab:"))
        if not (data.data_dir if is_prepared_by_tfds else data.source.removeprefix("records:")).startswith(SCHEME):
            only = "empty, or used with source=records:gs://BUCKET/PATH or, for tfds and vtab, data_dir=gs://BUCKET/PATH"
            _require(not data.local_copy, f"{field}.local_copy", data.local_copy, only)
    else:
        _require(not data.source, f"{field}.source", data.source, f"empty with {field}.parts")
        _require(not data.examples_per_class, f"{field}.examples_per_class", data.examples_per_class, "0; its parts may have it")
    for name, part in data.parts.items():
        _check_name(f"{field}.parts", name)
        _require(not part.parts, f"{field}.parts.{name}.parts", part.parts, "empty: a mixture has no mixtures")
        _check_data(f"{field}.parts.{name}", part)


def _check_augment(augment: ConfigDict, image_size: int) -> None:
    """Raise UserError if options of data augmentation contradict each other."""
    aspect, magnitude, size = augment.crop_min_aspect, augment.randaugment_magnitude, augment.resize_size
    bound = f"at most crop_max_aspect={augment.crop_max_aspect}"
    _require(aspect <= augment.crop_max_aspect, "augment.crop_min_aspect", aspect, bound)
    has_magnitude = augment.randaugment_layers == 0 or magnitude > 0
    _require(has_magnitude, "augment.randaugment_magnitude", magnitude, "above 0 when randaugment_layers is")
    _check_resize_size("augment.resize_size", size, image_size)


def _check_resize_size(field: str, resize_size: int, image_size: int) -> None:
    """Raise UserError if a crop of `image_size` is larger than the resized image."""
    expected = f"at least image_size={image_size}, which is cut out of it, or 0 for {round(image_size * 256 / 224)}"
    _require(resize_size == 0 or resize_size >= image_size, field, resize_size, expected)


def _check_patterns(optimizer: ConfigDict) -> None:
    """Raise UserError if a pattern for parameters is not a regular expression."""
    patterns = {f"multipliers {pattern!r}": pattern for pattern, _ in optimizer.multipliers}
    for field, pattern in ({"weight_decay_pattern": optimizer.weight_decay_pattern} | patterns).items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.optimizer.{field} is not a regular expression: {error}") from error


def _require(condition: bool, field: str, value: Any, expected: str) -> None:
    """Raise UserError that says what the option at the path `field` must be, unless the condition holds."""
    if not condition:
        raise UserError(f"config.{field} is {value!r}: it must be {expected}. Set it with --config.{field}=...")
