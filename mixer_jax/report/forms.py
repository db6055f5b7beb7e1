"""What the files of a run's folder must look like before a page is made of them: it may be damaged, or somebody else's."""

import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import dataset, default_config
from mixer_jax.errors import UserError

ANY = "..."  # as the only name in a form: any names
MOST = 10**30  # of a number that means something


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < MOST and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_metric(value: Any) -> bool:
    return value is None or _is_number(value) or isinstance(value, float)  # NaN and huge ones: of a diverged run


def _is_figure(value: Any) -> bool:
    return _is_metric(value) or isinstance(value, list)


# A form is a test of a value, a list of one form, or forms by name; a name with ! must be there.
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


def check_form(file: Path, value: Any, form: Any = None, path: str = "") -> None:
    """Raise UserError where what `file` holds does not have its form."""
    form = FORMS[file.name] if form is None else form
    if isinstance(form, list):
        sound = isinstance(value, list)
        parts = [(form[0], part, f"{path}[{number}]") for number, part in enumerate(value)] if sound else []
    elif isinstance(form, dict):
        sound = isinstance(value, dict) and all(name[:-1] in value for name in form if name.endswith("!"))
        names = value if sound else {}
        forms = {name: form.get(name, form.get(f"{name}!", form.get(ANY))) for name in names}
        parts = [(forms[name], names[name], f"{path}.{name}") for name in names if forms[name] is not None]
    else:
        sound, parts = form(value), []
    if not sound:
        raise UserError(f"{file} is damaged{f' at {path[:100]}' if path else ''}: it is not what a run writes there.")
    for part_form, part, part_path in parts:
        check_form(file, part, part_form, part_path)


def check_config(file: Path, config: ConfigDict) -> None:
    """Raise UserError where a config lacks an option, or has a value of another kind than the option's."""

    def find_fault(value: Any, default: Any, path: str) -> str:
        if isinstance(default, ConfigDict):
            if not isinstance(value, ConfigDict) or not set(default) <= set(value):
                return path
            return next((fault for name in default if (fault := find_fault(value[name], default[name], f"{path}.{name}"))), "")
        kinds = {bool: bool, int: int, float: int | float, str: str, tuple: list | tuple}
        is_huge = isinstance(value, int) and abs(value) >= MOST
        return "" if isinstance(value, kinds[type(default)]) and not is_huge else path

    fault = find_fault(config, default_config(), "config")
    parts = {} if fault else config.data.parts
    fault = fault or next(
        (found for name in parts if (found := find_fault(parts[name], dataset(), f"config.data.parts.{name}"))), ""
    )
    if fault:
        raise UserError(f"{file} is damaged at {fault}: it is not what a run writes there.")
