"""The config of a run as its config.json has it: read back, used again, and compared with another."""

import copy
import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import (
    OPTIONS,
    current_name,
    dataset,
    default_config,
    flatten,
    has_effect,
    may_change_on_resume,
    new_evaluator,
    row_of,
    without_paths,
)


def recorded_config(content: Mapping[str, Any]) -> ConfigDict:
    """Return the config of a run from its config.json, with present names, and with later options.

    Those have what a run did before they existed: for an option that a resumed run may change, that is its default.
    """
    config = ConfigDict(_with_current_names(content))
    for option in OPTIONS:
        *parents, name = option.name.split(".")
        part = functools.reduce(lambda part, parent: part.get(parent) if isinstance(part, ConfigDict) else None, parents, config)
        value = copy.deepcopy(option.default) if option.resumable else option.before
        if value is not None and isinstance(part, ConfigDict) and name not in part:
            part[name] = value
    return config


def usable_config(content: Mapping[str, Any]) -> ConfigDict:
    """Return the config of a run, of the content of its config.json, as a config file makes it: locked, and with every option.

    Raises KeyError, AttributeError or TypeError for something else.
    """
    config = default_config()
    _fill(config, recorded_config(content))
    return config.lock()


def _fill(section: ConfigDict, recorded: ConfigDict) -> None:
    """Set options to what was recorded; JSON has lists for tuples."""
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
    """Return {path: (value then, value now)} of the options that make two runs compute something different.

    An option that one of them lacks is None there. One without effect in either does not count, nor does where data lie.
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


def moved_data(then: ConfigDict, now: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return {path: (value then, value now)} of the options of the training data that only say where they lie, and differ."""
    old, new = flatten(then), flatten(now)
    bare_old, bare_new = without_paths(old), without_paths(new)
    names = [name for name in new if name.startswith("data.") and name in old and bare_old[name] == bare_new[name]]
    return {name: (old[name], new[name]) for name in names if old[name] != new[name]}
