"""Reads the config that a run recorded in its config.json, and compares it with another config."""

import copy
import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import dataset, default_config, flatten, new_evaluator, without_paths
from mixer_jax.options import OPTIONS, Option, current_name, has_effect, may_change_on_resume, row_of

OF_NO_FIGURE = ("batch_size", "max_predictions", "data.max_labels", "data.verify")  # They change no figure of an evaluator.


def recorded_config(content: Mapping[str, Any]) -> ConfigDict:
    """Return the config of a run from the content of its config.json, with current names of options.

    Options that were added later are added if they have a value that describes what runs did before: for an option that a resumed
    run may change and one that has no effect beside the others, this is its default, for other options `Option.before`.
    """
    config = ConfigDict(_with_current_names(content))
    recorded = flatten(config)
    for option in OPTIONS:
        *parents, name = option.name.split(".")
        part = functools.reduce(lambda part, parent: part.get(parent) if isinstance(part, ConfigDict) else None, parents, config)
        is_idle = _is_idle(option, recorded)
        value = copy.deepcopy(option.default) if option.resumable or is_idle else option.before
        if part is None and option.resumable and len(parents) == 1:  # The whole section was added later.
            config[parents[0]] = part = ConfigDict()
        if value is not None and isinstance(part, ConfigDict) and name not in part:
            part[name] = value
    return config


def _is_idle(option: Option, recorded: Mapping[str, Any]) -> bool:
    """Return whether an option has no effect beside the recorded values, which may be of any type."""
    try:
        return bool(option.only) and option.only[0] in recorded and not has_effect(option, recorded)
    except TypeError:
        return False


def usable_config(content: Mapping[str, Any]) -> ConfigDict:
    """Return the config of a run from the content of its config.json, in the form that a config file returns.

    This config is locked and has every option. Raises KeyError, AttributeError or TypeError if the content is not that of a
    config.json.
    """
    config = default_config()
    _fill(config, recorded_config(content))
    return config.lock()


def _fill(section: ConfigDict, recorded: ConfigDict) -> None:
    """Set the options of a section to the recorded values. Lists become tuples, because JSON has no tuples."""
    for name, value in recorded.items():
        if name in ("evals", "parts"):
            with section.unlocked():
                for part, options in value.items():
                    section[name][part] = dataset() if name == "parts" else new_evaluator((), options.kind)
                    _fill(section[name][part], options)
        elif isinstance(value, ConfigDict):
            _fill(section[name], value)
        else:
            section[name] = _as_tuple(value)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value


def _with_current_names(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {current_name(name): _with_current_names(value) for name, value in content.items()}


def differences(then: ConfigDict, now: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return {path: (value then, value now)} of the options whose difference changes what a run computes.

    The value of an option that a config lacks is None. Left out are options that may change when a run is resumed, options
    without effect in both configs, and the directories of data.
    """
    old, new = without_paths(flatten(then)), without_paths(flatten(now))

    def matters(name: str) -> bool:
        row = row_of(name)
        is_idle = row and row.only and not any(has_effect(row, values) for values in (old, new) if row.only[0] in values)
        other, *having = row.resumable_with if row and row.resumable_with else ("",)
        is_free = may_change_on_resume(name) or all(values.get(other) in having for values in (old, new))
        return not is_idle and not is_free

    names = [name for name in sorted(old | new) if old.get(name) != new.get(name) and matters(name)]
    return {name: (flatten(then).get(name), flatten(now).get(name)) for name in names}


def evaluator_differences(then: ConfigDict, now: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return {option: (value then, value now)} of the options of an evaluator whose difference changes its figures."""
    old, new = without_paths(flatten(then)), without_paths(flatten(now))
    names = [name for name in sorted(old | new) if name not in OF_NO_FIGURE and not name.startswith("every.")]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def moved_data(then: ConfigDict, now: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return {path: (value then, value now)} of the options of the training data that differ in nothing but a directory."""
    old, new = flatten(then), flatten(now)
    old_without_paths, new_without_paths = without_paths(old), without_paths(new)
    names = [
        name for name in new if name.startswith("data.") and name in old and old_without_paths[name] == new_without_paths[name]
    ]
    return {name: (old[name], new[name]) for name in names if old[name] != new[name]}
