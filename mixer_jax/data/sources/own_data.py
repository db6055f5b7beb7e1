"""What follows the training data when a user types others than the config file's: `--config.data.source=folder:photos`.

Evaluators of the data set that the file trains on then evaluate on the new one, on a split of it that is not trained on, and the
number of classes is that of the new data. What the user typed is never changed. An evaluator of other data stays as it is. One
that names no source, such as a new one that was typed, is of the training data.
"""

from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import DATA_FIELDS, flatten
from mixer_jax.data.sources.registry import open_source, split_names
from mixer_jax.errors import UserError
from mixer_jax.validation import validate

SHARED = ("source", "data_dir", "max_labels", "verify")  # what all splits of a data set have in common
TRAINING = ("train", "training")  # usual names of splits, the most usual first
HELD_OUT = ("test", "testing", "validation", "valid", "val", "dev")
SLICED = {"tfds": "[+", "records": "["}  # kinds of sources whose splits may be slices, or sums: the signs for it


class Follower:
    """A config that is changed where the user typed nothing; `changed` has what was set, by path."""

    def __init__(self, config: ConfigDict, typed: Collection[str]):
        self.config, self.changed, self._typed = config, {}, typed

    def set(self, path: str, value: Any) -> None:
        """Set an option, unless it was typed."""
        if path not in self._typed and flatten(self.config)[path] != value:
            self.config.update_from_flattened_dict({path: value})
            self.changed[path] = value

    def is_typed(self, path: str) -> bool:
        return path in self._typed


def follow_training_data(config: ConfigDict, in_file: ConfigDict, typed: Collection[str], *, num_classes: bool = True) -> str:
    """Set in `config` what follows the training data that were typed; return a line that says so, "" if nothing was set.

    Raises UserError where an evaluator would find no other split than the one that is trained on.

    Args:
      config: the config with what the user typed.
      in_file: the config as its file makes it.
      typed: the paths of the options that the user typed, such as "data.source".
      num_classes: whether the number of classes follows too.
    """
    is_typed = any(f"data.{field}" in typed for field in SHARED)
    follower = Follower(config, typed)
    following = _following(follower, in_file, is_typed)
    if config.data.parts or not (is_typed or following):
        return ""
    for path in following:
        for option in SHARED:
            follower.set(f"{path}.{option}", config.data[option])
    validate(config)
    splits = split_names(config.data)
    if splits is not None:  # otherwise there is no such data set, which is said where it is opened
        if is_typed:
            follower.set("data.split", _training_split(config.data, splits))
        _set_splits(follower, following, splits)
    if num_classes and is_typed and not follower.is_typed("num_classes"):
        data = config.data.copy_and_resolve_references()
        data.examples_per_class = 0  # it would read all labels, and does not change the classes
        follower.set("num_classes", open_source(data).num_classes)
    if not follower.changed:
        return ""
    flags = " ".join(f"--config.{path}={value}" for path, value in follower.changed.items())
    return f"Set for the training data {config.data.source}, as you did not type it: {flags}"


def _following(follower: Follower, in_file: ConfigDict, is_typed: bool) -> list[str]:
    """Return the paths of the evaluators' data that follow: without a source or, if data are typed, with the file's source."""
    config, paths = follower.config, []
    for name, evaluator in config.evals.items():
        for field in DATA_FIELDS.get(evaluator.kind, ()):
            path, data = f"evals.{name}.{field}", evaluator[field]
            before = in_file.evals[name].get(field) if name in in_file.evals else None
            is_of_file = is_typed and before is not None and before.source == in_file.data.source
            if not data.parts and not follower.is_typed(f"{path}.source") and (is_of_file or not data.source):
                paths.append(path)
    return paths


def _set_splits(follower: Follower, following: list[str], splits: tuple[str, ...]) -> None:
    """Set the splits of data that follow. Raises UserError where none is left for evaluators."""
    config, without_split = follower.config, []
    for path in following:
        _, name, field = path.split(".")
        data = config.evals[name][field]
        if follower.is_typed(f"{path}.split"):
            continue
        split = _training_split(data, splits) if field == "train" else _held_out_split(data, splits, config.data.split)
        if split is None:
            without_split.append(name)
        else:
            follower.set(f"{path}.split", split)
    if without_split:
        raise UserError(_explain(config, without_split, splits))


def _training_split(data: ConfigDict, splits: tuple[str, ...]) -> str:
    """Return the split to train on: the one that is set, where there is one, otherwise the one with a usual name.

    Without any split, it is all that lies there.
    """
    if not splits:
        return ""
    return data.split if _has(data, splits) else _first(TRAINING, splits) or data.split


def _held_out_split(data: ConfigDict, splits: tuple[str, ...], training: str) -> str | None:
    """Return the split to evaluate on, as `_training_split` does; None where there is none beside that of training."""
    if _has(data, splits) and not _overlap(data.split, training):
        return data.split
    return _first(HELD_OUT, [split for split in splits if not _overlap(split, training)])


def _has(data: ConfigDict, splits: Collection[str]) -> bool:
    """Whether a source has the split that is set, which may be a slice or a sum where the source allows these."""
    signs = SLICED.get(data.source.partition(":")[0], "")
    parts = data.split.split("+") if "+" in signs else [data.split]
    return all((part.partition("[")[0] if "[" in signs else part) in splits for part in parts)


def _overlap(split: str, training: str) -> bool:
    """Whether two splits share records, as far as their names tell: two slices of one split are taken not to."""
    pairs = [(part, other) for part in split.split("+") for other in training.split("+")]
    return any(
        part == other or (part.partition("[")[0] == other.partition("[")[0] and not ("[" in part and "[" in other))
        for part, other in pairs
    )


def _first(names: Collection[str], splits: Collection[str]) -> str | None:
    by_name = {split.lower(): split for split in splits}
    return next((by_name[name] for name in names if name in by_name), None)


def _explain(config: ConfigDict, names: list[str], splits: tuple[str, ...]) -> str:
    """Say that evaluators have no split of their own, and what to type."""
    has = f"has the splits {', '.join(splits)}" if splits else "has no splits"
    field = DATA_FIELDS[config.evals[names[0]].kind][-1]
    training = f"split {config.data.split!r}" if config.data.split else "all of it"
    off = " ".join(f"--config.evals.{name}=None" for name in names)
    return (
        f"{config.data.source} {has}, and the run trains on {training}: no other is left for "
        f"{' and '.join(f'config.evals.{name}' for name in names)}. Make a split named test, name other data with "
        f"--config.evals.{names[0]}.{field}.source=... --config.evals.{names[0]}.{field}.split=..., or train without: {off}."
    )
