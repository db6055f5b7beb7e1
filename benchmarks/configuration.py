"""Writes docs/configuration.md, the page of all options, from the table in mixer_jax/options.py.

The command is `python -m benchmarks.configuration`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks import markdown
from mixer_jax.options import DATASET, EVALUATORS, LENGTH, OPTIONS, RENAMED, Option

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """\
# Configuration

`python -m benchmarks.configuration` writes this page from the table in [`mixer_jax/options.py`](../mixer_jax/options.py). Change
that table, not this page.

On the command line, write `--config.optimizer.learning_rate=0.003`. In a config file, call `default_config()` and assign. The
error about an unknown name gives the nearest known one, and the error about a contradiction names the option to change. Both come
before a device is touched.

A length of training is given in one of three units, for example `--config.total.steps`, `--config.total.epochs` or
`--config.total.examples`; the others are 0. It means the same on any number of devices, as does `batch_size`.

`--data-locations=FILE` says where data sets lie, for all configs at once: see [Data](data.md#data-sets-that-lie-elsewhere).

A run may be resumed with another value of the options marked \u21bb. Any other change is refused: it would be another run.
"""
RUN = "The run"  # The title of the section for options that belong to no part of the config.


def page() -> str:
    """Return the content of docs/configuration.md."""
    groups: dict[str, list[Option]] = {RUN: []}
    for option in OPTIONS:
        part, _, name = option.name.partition(".")
        groups.setdefault(f"`{part}`" if name else RUN, []).append(option)
    text = HEAD + "".join(f"\n## {name}\n\n{table(options)}" for name, options in groups.items())
    names = ", ".join(f"`{option.name}`" for option in DATASET)
    text += f"\n`data.parts.NAME`, a part of a mixture, and the datasets of evaluators have the options of `data`: {names}.\n"
    text += "\n## Evaluators\n\n`evals` holds evaluators by names of your choice: `--config.evals.NAME.batch_size=64`.\n"
    text += "".join(f"\n### `{kind}(...)`\n\n{table(options)}" for kind, options in EVALUATORS.items())
    renamed = markdown.table(["old", "now"], [(f"`{old}`", f"`{new}`") for old, new in RENAMED.items()])
    return text + f"\n## Renamed options\n\nThe old names are still understood.\n\n{renamed}\n"


def table(options: Sequence[Option]) -> str:
    """Return a Markdown table with one line for each option."""
    return markdown.table(["option", "default", "meaning", "values"], [cells(option) for option in options]) + "\n"


def cells(option: Option) -> tuple[str, str, str, str]:
    """Return an option's name, its default with the unit, its meaning and its allowed values."""
    unit = "" if option.unit in ("", LENGTH) else f" {option.unit}"
    values = [", ".join(f"`{choice}`" for choice in option.choices), option.allowed]
    values += ["a length"] if option.unit == LENGTH else []
    if option.only:
        other, *needed = option.only
        values.append(f"only with {other} {' or '.join(needed)}")
    mark = " \u21bb" if option.resumable else ""
    return f"`{option.name}`{mark}", default_text(option.default) + unit, option.doc, "; ".join(filter(None, values))


def default_text(value: Any) -> str:
    """Return the default value of an option as Markdown."""
    if isinstance(value, ConfigDict):
        return ", ".join(f"`{name}={leaf!r}`" for name, leaf in value.items() if leaf) or "unset"
    return "required" if value is None else f"`{value!r}`"


if __name__ == "__main__":
    PAGE.write_text(page())
