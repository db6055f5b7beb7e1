"""The flag --config: a config file or a run's config.json, and the evaluators that a user adds or switches off."""

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
from mixer_jax.errors import UserError
from mixer_jax.recorded_config import usable_config
from mixer_jax.storage import read_bytes, read_json

HELP = "configs/FILE.py, configs/FILE.py:ARG, or the config.json of a run"
MAX_CONFIG_BYTES = 2**20
MODULE = "config_config"  # what ml_collections calls the module of a config file
SWITCHED_OFF = re.compile(r"--?config\.evals(?:\.([\w-]+))?=(?i:none)")  # without a name: all
OF_EVALUATOR = re.compile(r"--?(?:no)?config\.evals\.([\w-]+)\.(\w+)(?:\.[\w.-]+)?(?:=(.*))?", re.DOTALL)


def define_config(values: flags.FlagValues, argv: list[str]) -> None:
    """Define --config, changed by what `argv` has of --config.OPTION=VALUE. `values` is to parse `without_switches(argv)`.

    ml_collections refuses an option that the config does not have, and cannot take one away. So evaluators come and go before it
    looks: --config.evals.NAME.OPTION=VALUE adds an evaluator of a new name, and --config.evals.NAME=None takes one away.
    """
    config_flags.DEFINE_config_file("config", None, HELP, flag_values=values, lock_config=True, sys_argv=without_switches(argv))
    values["config"].parser = _ConfigParser(argv)


def without_switches(argv: Iterable[str]) -> list[str]:
    """Return the arguments without those that switch evaluators off."""
    return [argument for argument in argv if not SWITCHED_OFF.fullmatch(argument)]


def read_run_config(file: Path) -> ConfigDict:
    """Return the config of a run from its config.json. Raises UserError for a file that is none."""
    if not (content := read_json(file)):
        raise UserError(f"There is no config file {file}.")
    try:
        return usable_config(content)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{file} is no config of a run, or a damaged one: {_brief(error.args[0])}.") from error


class _ConfigParser(flags.ArgumentParser):
    """In place of ml_collections' parser of config files: says what is wrong where, reads config.json, changes the evaluators."""

    def __init__(self, argv: list[str]):
        self._argv = argv

    def parse(self, argument: str) -> Any:
        config = read_run_config(Path(argument)) if argument.endswith(".json") else run_config_file(argument)
        with config.unlocked():
            _switch_off(config.evals, self._argv)
            _add(config.evals, self._argv)
        config.lock()
        return config


def run_config_file(argument: str) -> ConfigDict:
    """Return what get_config returns in FILE.py or FILE.py:ARG. Raises UserError that names the file and, in it, the line."""
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
    except Exception as error:  # the file is a program, and may fail as any
        raise _failing_config(error, name) from error
    if not isinstance(config, ConfigDict):
        kind = "None" if config is None else f"an object of type {type(config).__name__}"
        raise UserError(f"get_config in {name} returns {kind}: it must return the config that default_config() made.")
    if missing := [option for option in default_config() if option not in config]:
        raise UserError(f"The config of {name} lacks {', '.join(missing[:5])}: it must begin with default_config().")
    return config


def _check_arguments(get_config: Callable, name: str, arguments: list[str]) -> None:
    """Raise UserError where get_config takes no argument and one is given, or the other way round."""
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        mend = f"takes none: --config={name}" if arguments else f"needs one: --config={name}:ARG"
        given = f"the argument {arguments[0]!r}" if arguments else "no argument"
        raise UserError(f"--config gives {name} {given}, and its get_config {mend}") from error


def _failing_config(error: Exception, name: str) -> UserError:
    """Return what the code of a config file raised, with the line of it, or of a file that it imports."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else name
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}, line {error.lineno}"
    if nearest := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error)):
        return UserError(f'The config file fails in {where}: there is no option "{nearest[2]}". Did you mean "{nearest[1]}"?')
    reason = f": {_brief(error.args[0])}" if error.args else ""
    return UserError(f"The config file fails in {where}: {type(error).__name__}{reason}.")


def _is_users(file: str) -> bool:
    """Return whether code is a user's, and no library's."""
    paths = sysconfig.get_paths()
    libraries = (*(paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")), str(Path(__file__).parent))
    return Path(file).is_file() and not os.path.abspath(file).startswith(libraries)


def _brief(text: Any) -> str:
    """Return the first line of an error of ml_collections, without the list of all options."""
    return str(text).partition(" Other fields present")[0].partition("\n")[0].removesuffix(".")


def _switch_off(evals: ConfigDict, argv: list[str]) -> None:
    for match in filter(None, map(SWITCHED_OFF.fullmatch, argv)):
        for name in [match[1]] if match[1] else list(evals):
            if name not in evals:
                raise UserError(f"{match[0]}: the config has no such evaluator; it has {', '.join(evals) or 'none'}.")
            del evals[name]


def _add(evals: ConfigDict, argv: list[str]) -> None:
    """Add the evaluators that the config does not have, and say so: the name may be a typing error."""
    typed: dict[str, dict[str, str | None]] = {}
    for match in filter(None, map(OF_EVALUATOR.fullmatch, argv)):
        if match[1] not in evals:
            typed.setdefault(match[1], {})[match[2]] = match[3]
    others = ", ".join(evals) or "no other"
    for name, options in typed.items():
        evals[name] = new_evaluator(options, options.get("kind"))
        print(f"config.evals.{name} is a new evaluator ({evals[name].kind}), beside {others}.", file=sys.stderr)
