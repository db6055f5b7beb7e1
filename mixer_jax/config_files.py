"""The flag --config: a config file or a run's config.json, and the evaluators that a user adds or switches off."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from mixer_jax.config import new_evaluator
from mixer_jax.errors import UserError
from mixer_jax.recorded_config import usable_config
from mixer_jax.storage import read_json

HELP = "configs/FILE.py, configs/FILE.py:ARG, or the config.json of a run"
SWITCHED_OFF = re.compile(r"--?config\.evals(?:\.([\w-]+))?=(?i:none)")  # without a name: all
OF_EVALUATOR = re.compile(r"--?(?:no)?config\.evals\.([\w-]+)\.(\w+)(?:\.[\w.-]+)?(?:=(.*))?", re.DOTALL)


def define_config(values: flags.FlagValues, argv: list[str]) -> None:
    """Define --config, changed by what `argv` has of --config.OPTION=VALUE. `values` is to parse `without_switches(argv)`.

    ml_collections refuses an option that the config does not have, and cannot take one away. So evaluators come and go before it
    looks: --config.evals.NAME.OPTION=VALUE adds an evaluator of a new name, and --config.evals.NAME=None takes one away.
    """
    config_flags.DEFINE_config_file("config", None, HELP, flag_values=values, lock_config=True, sys_argv=without_switches(argv))
    values["config"].parser = _ConfigParser(values["config"].parser, argv)


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
        raise UserError(f"{file} is no config of a run, or a damaged one: {error}.") from error


class _ConfigParser(flags.ArgumentParser):
    """ml_collections' parser of config files, which also reads config.json, and then changes the evaluators."""

    def __init__(self, parser: flags.ArgumentParser, argv: list[str]):
        self._parser, self._argv = parser, argv

    def parse(self, argument: str) -> Any:
        sys.modules.pop("config_config", None)  # ml_collections loads each config file into one module, with what an earlier left
        config = read_run_config(Path(argument)) if argument.endswith(".json") else self._parser.parse(argument)
        if isinstance(config, ConfigDict) and "evals" in config:  # otherwise it is an error, which shows when it is used
            with config.unlocked():
                _switch_off(config.evals, self._argv)
                _add(config.evals, self._argv)
            config.lock()
        return config


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
