"""The flags --config and --data-locations, and the flags that add or remove evaluators.

--config names a config file or a run's config.json. --data-locations names a file that says where its data lie.
"""

import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from mixer_jax.config import default_config, new_evaluator
from mixer_jax.data_locations import move, read_locations
from mixer_jax.errors import UserError
from mixer_jax.options import current_name
from mixer_jax.recorded_config import usable_config
from mixer_jax.storage import read_bytes, read_json

HELP = "configs/FILE.py, configs/FILE.py:ARG, or the config.json of a run"
LOCATIONS_FLAG, LOCATIONS_HELP = "data-locations", "FILE.toml that says where data sets lie; it may be gs://BUCKET/FILE.toml"
MAX_CONFIG_BYTES = 2**20
MODULE = "config_config"  # ml_collections gives this name to the module of a config file.
SWITCHED_OFF = re.compile(r"--?config\.evals(?:\.([\w-]+))?=(?i:none)")  # Without the name of an evaluator, it removes all.
EVALUATOR_FLAG = re.compile(r"--?(?:no)?config\.evals\.([\w-]+)\.(\w+)(?:\.[\w.-]+)?(?:=(.*))?", re.DOTALL)


def define_config(values: flags.FlagValues, argv: list[str]) -> None:
    """Define the flags --data-locations, --config and, for each --config.OPTION=VALUE in `argv`, one that changes the option.

    --config.evals.NAME.OPTION=VALUE adds an evaluator if NAME is new, and --config.evals.NAME=None removes an evaluator.
    ml_collections can do neither: it refuses options that the config does not have, and cannot remove an option. So this file
    changes the evaluators before ml_collections reads the flags. `values` must then parse `without_switches(argv)`.
    """
    config_flags.DEFINE_config_file("config", None, HELP, flag_values=values, lock_config=True, sys_argv=without_switches(argv))
    values["config"].parser = _ConfigParser(argv)
    flags.DEFINE_string(LOCATIONS_FLAG, "", LOCATIONS_HELP, flag_values=values)


def typed_paths(values: flags.FlagValues) -> frozenset[str]:
    """Return the paths of the options that were typed, such as "data.source"."""
    typed = config_flags.get_override_values(values["config"])
    return frozenset(".".join(map(current_name, path.split("."))) for path in typed)


def use_locations(values: flags.FlagValues) -> dict[str, str]:
    """Take the data of the config from where the file of --data-locations says, and return what that changed, as `move` does.

    An option that was typed stays as it is. Only the source of an evaluator that flags have added is looked up in the file too.
    """
    file = values[LOCATIONS_FLAG].value
    if not file:
        return {}
    added = tuple(f"evals.{name}." for name in values["config"].parser.added)
    kept = {path for path in typed_paths(values) if not (path.startswith(added) and path.endswith(".source"))}
    return move(values.config, read_locations(file), kept)


def evaluator_of(flag: str) -> str:
    """Return the name of the evaluator that a flag changes, adds or removes, or "" for another flag."""
    found = re.match(r"--?(?:no)?config\.evals\.([\w-]+)[.=]", flag)
    return found[1] if found else ""


def without_switches(argv: Iterable[str]) -> list[str]:
    """Return the arguments without those that remove evaluators."""
    return [argument for argument in argv if not SWITCHED_OFF.fullmatch(argument)]


def read_run_config(file: Path) -> ConfigDict:
    """Return the config of a run from its config.json. Raises UserError if there is no such file or it is not a run's config."""
    if not (content := read_json(file)):
        raise UserError(f"There is no config file {file}.")
    try:
        return usable_config(content)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{file} is no config of a run, or a damaged one: {_brief(error.args[0])}.") from error


class _ConfigParser(flags.ArgumentParser):
    """A parser of the flag --config, which takes the place of ml_collections' parser.

    It also reads a run's config.json, adds and removes evaluators, and raises UserErrors that name the line of a fault.
    """

    def __init__(self, argv: list[str]):
        self.added: tuple[str, ...] = ()  # The names of the evaluators that the flags have added.
        self._argv = argv

    def parse(self, argument: str) -> Any:
        """Return the config that the value of the flag --config names."""
        config = read_run_config(Path(argument)) if argument.endswith(".json") else run_config_file(argument)
        with config.unlocked():
            _remove_evaluators(config.evals, self._argv)
            self.added = _add_evaluators(config.evals, self._argv)
        config.lock()
        return config


def run_config_file(argument: str) -> ConfigDict:
    """Return the config that get_config returns, for FILE.py or FILE.py:ARG.

    Raises UserError that names the file and the line if the file cannot be run or does not return a config.
    """
    name, *arguments = argument.split(":", 1)
    file = Path(name)
    if not file.is_file():
        raise UserError(
            f"--config={name} is a folder: name a file in it." if file.is_dir() else f"There is no config file {name}."
        )
    if file.suffix != ".py":
        raise UserError(
            f"{name} is no config: that is a file of Python, FILE.py with a function get_config, or a run's config.json."
        )
    module = sys.modules[MODULE] = ModuleType(MODULE)
    module.__file__ = name
    try:
        exec(compile(read_bytes(file, MAX_CONFIG_BYTES), name, "exec"), vars(module))
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise UserError(f"{name} has no function get_config, which returns the config: see configs/ for examples.")
        _check_arguments(get_config, name, arguments)
        config = get_config(*arguments)
    except UserError:
        raise
    except Exception as error:  # A config file is a program, which can raise any exception.
        raise _failing_config(error, name) from error
    if not isinstance(config, ConfigDict):
        kind = "None" if config is None else f"an object of type {type(config).__name__}"
        raise UserError(f"get_config in {name} returns {kind}: it must return the config that default_config() made.")
    if missing := [option for option in default_config() if option not in config]:
        raise UserError(f"The config of {name} lacks {', '.join(missing[:5])}: it must begin with default_config().")
    return config


def _check_arguments(get_config: Callable, name: str, arguments: list[str]) -> None:
    """Raise UserError if get_config takes no argument and one is given, or takes one and none is given."""
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        mend = f"takes none: --config={name}" if arguments else f"needs one: --config={name}:ARG"
        given = f"the argument {arguments[0]!r}" if arguments else "no argument"
        raise UserError(f"--config gives {name} {given}, and its get_config {mend}") from error


def _failing_config(error: Exception, name: str) -> UserError:
    """Return a UserError for an exception of a config file, with the line of the config file, or of a file that it imports."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else name
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}, line {error.lineno}"
    if nearest := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error)):
        return UserError(f'The config file fails in {where}: there is no option "{nearest[2]}". Did you mean "{nearest[1]}"?')
    reason = f": {_brief(error.args[0])}" if error.args else ""
    return UserError(f"The config file fails in {where}: {type(error).__name__}{reason}.")


def _is_users(file: str) -> bool:
    """Return whether a file of code is the user's, and not a library's or this package's."""
    paths = sysconfig.get_paths()
    libraries = (*(paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")), str(Path(__file__).parent))
    return Path(file).is_file() and not os.path.abspath(file).startswith(libraries)


def _brief(text: Any) -> str:
    """Return the first line of a message of ml_collections, without its list of all options."""
    return str(text).partition(" Other fields present")[0].partition("\n")[0].removesuffix(".")


def _remove_evaluators(evals: ConfigDict, argv: list[str]) -> None:
    """Remove the evaluators for which `argv` has --config.evals.NAME=None, or all for --config.evals=None."""
    for match in filter(None, map(SWITCHED_OFF.fullmatch, argv)):
        for name in [match[1]] if match[1] else list(evals):
            if name not in evals:
                raise UserError(f"{match[0]}: the config has no such evaluator; it has {', '.join(evals) or 'none'}.")
            del evals[name]


def _add_evaluators(evals: ConfigDict, argv: list[str]) -> tuple[str, ...]:
    """Add the evaluators in `argv` that the config does not have, and return their names.

    Print a line for each, because the name may be a typo.
    """
    typed: dict[str, dict[str, str | None]] = {}
    for match in filter(None, map(EVALUATOR_FLAG.fullmatch, argv)):
        if match[1] not in evals:
            typed.setdefault(match[1], {})[match[2]] = match[3]
    others = ", ".join(evals) or "no other"
    for name, options in typed.items():
        evals[name] = new_evaluator(options, options.get("kind"))
        print(f"config.evals.{name} is a new evaluator ({evals[name].kind}), beside {others}.", file=sys.stderr)
    return tuple(typed)
