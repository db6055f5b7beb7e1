"""Where data sets lie here: a file of TOML that --data-locations names, and its use on a config.

The file has a table for each data set, under the source by which configs name it:

    ["tfds:imagenet2012"]
    data_dir = "gs://bucket/tfds"

    ["tfds:oxford_iiit_pet"]
    source = "folder:/data/pets"
    splits = {test = "val"}

A table has options of a `config.dataset(...)` that all splits have in common. With a `source`, the data set is read from there,
and `splits` then maps the names of splits in configs to the names there. A table for a data set that a config does not use has no
effect, so one file serves all runs.
"""

import dataclasses
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.options import DATA_FIELDS, DATASET, SHARED_BY_SPLITS, Option
from mixer_jax.storage import open_storage
from mixer_jax.validation import allows

MAX_BYTES = 2**20
SOURCE = re.compile(r"digits|glyphs|(folder|tfds|vtab|records):.+")
KINDS = "digits, glyphs, folder:DIR, tfds:NAME, vtab:TASK or records:DIR"
OPTIONS = {option.name: option for option in DATASET if option.name in SHARED_BY_SPLITS}
OF_THE_PLACE = ("data_dir", "local_copy")  # At another source, the values of the config for these mean nothing.
KINDS_OF_VALUES = {str: "text in quotes", int: "a whole number"}


@dataclasses.dataclass(frozen=True)
class Location:
    """Where a data set lies: options of a `config.dataset(...)`, and {name of a split in configs: its name there}."""

    options: Mapping[str, Any]
    splits: Mapping[str, str]

    @property
    def is_elsewhere(self) -> bool:
        """Whether the data set has another source here."""
        return "source" in self.options

    def split(self, name: str) -> str:
        """Return the name here of a split. In a slice such as train[:99%] and a sum such as train+test, each name is replaced."""
        if name in self.splits:
            return self.splits[name]
        parts = [part.partition("[") for part in name.split("+")]
        return "+".join(f"{self.splits.get(split, split)}{bracket}{rest}" for split, bracket, rest in parts)


def read_locations(path: str) -> dict[str, Location]:
    """Return {source: its location} from a file of TOML, which may be in a bucket.

    Raises UserError, which names the file and the line or the key, for a file that is missing, that is not TOML, or that states
    something else than locations.
    """
    folder, slash, name = path.rpartition("/")
    if Path(path).expanduser().is_dir():
        raise UserError(f"--data-locations={path} is a folder: name a file in it.")
    text = open_storage(folder + slash or ".").read_whole(name, MAX_BYTES)
    if text is None:
        raise UserError(f"There is no file {path}, which --data-locations names.")
    try:
        tables = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # The file is not UTF-8 or TOML, or is nested too deep.
        raise UserError(f"{path} is not a file of TOML: {error}.") from error
    locations = {source: _location(f'{path}: ["{source}"]', source, table) for source, table in tables.items()}
    for source, location in locations.items():
        if location.is_elsewhere and location.options["source"] in locations:
            raise UserError(
                f'{path}: ["{source}"] source is {location.options["source"]!r}, which has a table of its own: write the options '
                f'of that table into ["{source}"], and remove it.'
            )
    return locations


def move(config: ConfigDict, locations: Mapping[str, Location], typed: Collection[str] = ()) -> dict[str, Any]:
    """Set the options of all data in `config` to where they lie: training data, evaluators' data, and parts of mixtures.

    A second call changes nothing more, so the recorded config of a run may be moved again.

    Args:
      config: The config. It is changed.
      locations: {source: its location}.
      typed: The paths of options that stay as they are, such as "data.source". Where the source stays, `locations` has no say in
        what is read from another source.

    Returns:
      {path of an option: its new value}.
    """
    changed = {}
    for path, data in datasets(config):
        location = locations.get(data.source)
        if location is None or (location.is_elsewhere and f"{path}.source" in typed):
            continue
        emptied = dict.fromkeys(OF_THE_PLACE, "") if location.is_elsewhere else {}
        for name, value in (emptied | dict(location.options) | {"split": location.split(data.split)}).items():
            if data[name] != value and f"{path}.{name}" not in typed:
                data[name] = changed[f"{path}.{name}"] = value
    return changed


def datasets(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    """Yield the path and the section of every dataset of a config. Of a mixture, these are its parts."""
    sections = {"data": config.data}
    for name, evaluator in config.evals.items():
        sections |= {f"evals.{name}.{field}": evaluator[field] for field in DATA_FIELDS.get(evaluator.kind, ())}
    for path, data in sections.items():
        if data.parts:
            yield from ((f"{path}.parts.{name}", part) for name, part in data.parts.items())
        else:
            yield path, data


def _location(where: str, source: str, table: Any) -> Location:
    """Return the location that a table of the file states. `where` names the table. Raises UserError if it states none."""
    _require(SOURCE.fullmatch(source), where, f"the name must be a source as configs name it: {KINDS}")
    _require(isinstance(table, dict), where, f"it must be a table of options: {', '.join(OPTIONS)}, splits")
    splits = table.get("splits", {})
    for name, value in table.items():
        if name != "splits":
            _require(name in OPTIONS, f"{where} {name}", f"there is no such option: they are {', '.join(OPTIONS)} and splits")
            _check_value(f"{where} {name}", OPTIONS[name], value)
    _require(isinstance(splits, dict), f"{where} splits", 'it must be a table such as {test = "val"}')
    for name, split in splits.items():
        _require(isinstance(split, str), f"{where} splits.{name}", "it must be text in quotes, the name of a split")
    _require(not splits or "source" in table, f"{where} splits", "it must stand beside a source, whose splits these are")
    return Location({name: value for name, value in table.items() if name != "splits"}, splits)


def _check_value(where: str, option: Option, value: Any) -> None:
    kind = type(option.default)
    _require(type(value) is kind, where, f"it is {value!r}, and must be {KINDS_OF_VALUES[kind]}")
    if option.choices:
        _require(value in option.choices, where, f"it is {value!r}, and must be one of {', '.join(option.choices)}")
    if option.allowed:
        _require(allows(option.allowed, value), where, f"it is {value!r}, and must be {option.allowed}")
    if option.name == "source":
        _require(SOURCE.fullmatch(value), where, f"it is {value!r}, and must be {KINDS}")


def _require(condition: object, where: str, message: str) -> None:
    if not condition:
        raise UserError(f"{where}: {message}.")
