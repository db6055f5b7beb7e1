"""Adapts a config to training data that the user types instead of the config file's: `--config.data.source=folder:photos`.

An evaluator of the dataset that the config file trains on then evaluates on the new dataset, on a split that is not trained on.
An evaluator of another dataset stays as it is. An evaluator that names no source, for example one that the user adds with flags,
evaluates on the training dataset. What the user typed is never changed. The number of classes follows later, when the run has
opened the data. Opening them here as well could mean hashing them twice.
"""

from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import flatten
from mixer_jax.data.sources.registry import split_names
from mixer_jax.errors import UserError
from mixer_jax.options import DATA_FIELDS, SHARED_BY_SPLITS
from mixer_jax.validation import validate

TRAINING = ("train", "training")  # The usual names of splits, the preferred name first.
HELD_OUT = ("test", "testing", "validation", "valid", "val", "dev")
SLICE_SIGNS = {"tfds": "[+", "records": "["}  # These sources allow a slice of a split ("[") or a sum of splits ("+").


class UntypedOptions:
    """A config whose options can be changed, except for those that the user typed.

    Attributes:
      config: the config.
      changed: {path of an option: its new value} of the options that were changed.
    """

    def __init__(self, config: ConfigDict, typed: Collection[str]):
        self.config, self.changed, self._typed = config, {}, typed

    def set(self, path: str, value: Any) -> None:
        """Set an option, unless the user typed it."""
        if path not in self._typed and flatten(self.config)[path] != value:
            self.config.update_from_flattened_dict({path: value})
            self.changed[path] = value

    def is_typed(self, path: str) -> bool:
        """Return whether the user typed an option."""
        return path in self._typed


def names_training_data(typed: Collection[str]) -> bool:
    """Return whether options that the user typed say which dataset to train on."""
    return any(f"data.{field}" in typed for field in SHARED_BY_SPLITS)


def follow_training_data(config: ConfigDict, in_file: ConfigDict, typed: Collection[str]) -> str:
    """Set the options of `config` that depend on which training data the user typed.

    Args:
      config: the config with what the user typed.
      in_file: the config as its file makes it.
      typed: the paths of the options that the user typed, such as "data.source".

    Returns:
      A line for the user that lists the flags of what was set, or "" if nothing was set.

    Raises:
      UserError: an evaluator needs a split that is not trained on, and the dataset has none.
    """
    is_typed = names_training_data(typed)
    options = UntypedOptions(config, typed)
    data_paths = _data_paths_to_set(options, in_file, is_typed)
    if config.data.parts or not (is_typed or data_paths):
        return ""
    for path in data_paths:
        for option in SHARED_BY_SPLITS:
            options.set(f"{path}.{option}", config.data[option])
    validate(config)
    splits = split_names(config.data)
    if splits is not None:  # If it is None, there is no such dataset, and opening it will raise a UserError that says so.
        if is_typed:
            options.set("data.split", _training_split(config.data, splits))
        _set_splits(options, data_paths, splits)
    if not options.changed:
        return ""
    flags = " ".join(f"--config.{path}={value}" for path, value in options.changed.items())
    return f"Set for the training data {config.data.source}, as you did not type it: {flags}"


def _data_paths_to_set(options: UntypedOptions, in_file: ConfigDict, is_typed: bool) -> list[str]:
    """Return the paths of the evaluators' data that must get the source of the training data.

    These are data without a source and, if the user typed the training data, data with the source that the file trains on.
    """
    config, paths = options.config, []
    for name, evaluator in config.evals.items():
        for field in DATA_FIELDS.get(evaluator.kind, ()):
            path, data = f"evals.{name}.{field}", evaluator[field]
            before = in_file.evals[name].get(field) if name in in_file.evals else None
            is_of_file = is_typed and before is not None and before.source == in_file.data.source
            if not data.parts and not options.is_typed(f"{path}.source") and (is_of_file or not data.source):
                paths.append(path)
    return paths


def _set_splits(options: UntypedOptions, data_paths: list[str], splits: tuple[str, ...]) -> None:
    """Set the splits of the evaluators' data at these paths. Raises UserError if no split is left for an evaluator."""
    config, without_split = options.config, []
    for path in data_paths:
        _, name, field = path.split(".")
        data = config.evals[name][field]
        if options.is_typed(f"{path}.split"):
            continue
        split = _training_split(data, splits) if field == "train" else _held_out_split(data, splits, config.data.split)
        if split is None:
            without_split.append(name)
        else:
            options.set(f"{path}.split", split)
    if without_split:
        raise UserError(_explain(config, without_split, splits))


def _training_split(data: ConfigDict, splits: tuple[str, ...]) -> str:
    """Return the split to train on: the split that is set if the source has it, otherwise a split with a usual name.

    If the source has no splits, return "", which stands for all of its records.
    """
    if not splits:
        return ""
    return data.split if _has_split(data, splits) else _first_named(TRAINING, splits) or data.split


def _held_out_split(data: ConfigDict, splits: tuple[str, ...], training: str) -> str | None:
    """Return the split to evaluate on: the split that is set if the source has it, otherwise a split with a usual name.

    A split that overlaps with the training split is not taken. If no split is left, return None.
    """
    if _has_split(data, splits) and not overlap(data.split, training):
        return data.split
    return _first_named(HELD_OUT, [split for split in splits if not overlap(split, training)])


def _has_split(data: ConfigDict, splits: Collection[str]) -> bool:
    """Return whether a source has the split that is set, which may be a slice or a sum if the source allows these."""
    signs = SLICE_SIGNS.get(data.source.partition(":")[0], "")
    parts = data.split.split("+") if "+" in signs else [data.split]
    return all((part.partition("[")[0] if "[" in signs else part) in splits for part in parts)


def overlap(split: str, training: str) -> bool:
    """Return whether the names of two splits say that they share records. Two slices of one split are assumed not to overlap."""
    pairs = [(part, other) for part in split.split("+") for other in training.split("+")]
    return any(
        part == other or (part.partition("[")[0] == other.partition("[")[0] and not ("[" in part and "[" in other))
        for part, other in pairs
    )


def _first_named(names: Collection[str], splits: Collection[str]) -> str | None:
    """Return the split that has the first of these names, in upper or lower case, or None if no split has one of them."""
    by_name = {split.lower(): split for split in splits}
    return next((by_name[name] for name in names if name in by_name), None)


def _explain(config: ConfigDict, names: list[str], splits: tuple[str, ...]) -> str:
    """Return a message that says that no split is left for these evaluators, and what to type."""
    has = f"has the splits {', '.join(splits)}" if splits else "has no splits"
    field = DATA_FIELDS[config.evals[names[0]].kind][-1]
    training = f"split {config.data.split!r}" if config.data.split else "all of it"
    off = " ".join(f"--config.evals.{name}=None" for name in names)
    return (
        f"{config.data.source} {has}, and the run trains on {training}: no other is left for "
        f"{' and '.join(f'config.evals.{name}' for name in names)}. Make a split named test, name other data with "
        f"--config.evals.{names[0]}.{field}.source=... --config.evals.{names[0]}.{field}.split=..., or train without: {off}."
    )
