"""The form that the files of a run's folder must have. It is checked because a folder may be damaged or come from a stranger."""

import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import dataset, default_config
from mixer_jax.errors import UserError

ANY = "..."  # as a name in a form: every name that the form does not list
MAX_MAGNITUDE = 10**30  # A number as large as this cannot be right.


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < MAX_MAGNITUDE and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_metric(value: Any) -> bool:
    return value is None or _is_number(value) or isinstance(value, float)  # A diverged run writes NaN and huge numbers.


def _is_figure(value: Any) -> bool:
    return _is_metric(value) or isinstance(value, list)


# A form is a function that tests a value, a list that holds the form of each item, or a dict of forms by name. A name that ends
# with "!" is required.
START = (
    {f"{name}!": _is_count for name in ("total_steps", "parameters", "devices")}
    | {f"{name}!": _is_text for name in ("time", "command", "git_commit", "python", "host", "platform", "device_kind")}
    | {"versions!": {ANY: _is_text}}
)
FORMS = {
    "run.json": {"starts": [START]},
    "metrics.jsonl": [{"step!": _is_count, ANY: _is_metric}],
    "results.json": {
        "step": _is_count,
        "params_sha256": _is_text,
        "evals": {ANY: {ANY: _is_figure}},
        "seconds": {"total!": _is_number, ANY: _is_number},
    },
}


def check_form(file: str, value: Any, form: Any = None, path: str = "") -> None:
    """Raise UserError if the content of a file does not have the form that FORMS states.

    Args:
      file: the file, on a disk or in a bucket; its name selects the form.
      value: the content, or the part of it that is checked.
      form: the form of that part.
      path: where the part is in the content, for the message.
    """
    form = FORMS[file.rpartition("/")[2]] if form is None else form
    if isinstance(form, list):
        is_valid = isinstance(value, list)
        parts = [(form[0], part, f"{path}[{number}]") for number, part in enumerate(value)] if is_valid else []
    elif isinstance(form, dict):
        is_valid = isinstance(value, dict) and all(name[:-1] in value for name in form if name.endswith("!"))
        items = value if is_valid else {}
        forms = {name: form.get(name, form.get(f"{name}!", form.get(ANY))) for name in items}
        parts = [(forms[name], items[name], f"{path}.{name}") for name in items if forms[name] is not None]
    else:
        is_valid, parts = form(value), []
    if not is_valid:
        raise UserError(f"{file} is damaged{f' at {path[:100]}' if path else ''}: it is not what a run writes there.")
    for part_form, part, part_path in parts:
        check_form(file, part, part_form, part_path)


def check_config(file: Path, config: ConfigDict) -> None:
    """Raise UserError if a config lacks an option, or if an option's value has another type than its default.

    The message names `file`, from which the config was read.
    """

    def find_fault(value: Any, default: Any, path: str) -> str:
        if isinstance(default, ConfigDict):
            if not isinstance(value, ConfigDict) or not set(default) <= set(value):
                return path
            return next((fault for name in default if (fault := find_fault(value[name], default[name], f"{path}.{name}"))), "")
        types = {bool: bool, int: int, float: int | float, str: str, tuple: list | tuple}
        is_huge = isinstance(value, int) and abs(value) >= MAX_MAGNITUDE
        return "" if isinstance(value, types[type(default)]) and not is_huge else path

    fault = find_fault(config, default_config(), "config")
    parts = {} if fault else config.data.parts
    faults_of_parts = (find_fault(parts[name], dataset(), f"config.data.parts.{name}") for name in parts)
    fault = fault or next(filter(None, faults_of_parts), "")
    if fault:
        raise UserError(f"{file} is damaged at {fault}: it is not what a run writes there.")
