"""How the programs start, one another too, and end: flags, errors as one message, exit codes.

0   done (also when the run was done before)
1   failed
2   something to mend: flags, config, data, a checkpoint that does not fit
75  stopped by SIGTERM or Ctrl-C, and saved: the same command goes on
"""

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from mixer_jax.errors import UserError

DONE, TO_MEND, STOPPED = 0, 2, 75
ROOT = Path(__file__).parents[1]
IS_CLONE = (ROOT / "train.py").is_file()  # and not an installation, which is the package alone
_UNKNOWN = "Unknown arguments {}: options are written --name=value."


def run(main: Callable[[flags.FlagValues], int], **required: str) -> None:
    """Defines --config, the `required` flags (name=help) and those of a pod; parses; exits with the code of main(flags).

    UserErrors and wrong flags are printed as one message, without a traceback.
    """
    config_flags.DEFINE_config_file("config", None, "configs/FILE.py or configs/FILE.py:ARG", lock_config=True)
    for name, text in required.items():
        flags.DEFINE_string(name, None, text)
    flags.mark_flags_as_required(["config", *required])
    _define_distributed_flags()

    def parse(argv: list[str]) -> list[str]:
        try:
            arguments = _parse(flags.FLAGS, argv)
        except UserError as error:
            _exit_to_mend(error)
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)  # --verbosity=0 shows what the libraries do
        return arguments

    def guarded(argv: list[str]) -> int:
        try:
            if len(argv) > 1:
                raise UserError(_UNKNOWN.format(argv[1:]))
            return main(flags.FLAGS)
        except UserError as error:
            _exit_to_mend(error)
        except KeyboardInterrupt:
            print("Stopped before the first step; nothing to save.", file=sys.stderr)
            return 128 + signal.SIGINT

    app.run(guarded, flags_parser=parse)


def parse_tool(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments; `overrides` is what a tool with --config leaves over: options of that config."""
    arguments, overrides = parser.parse_known_args(argv)
    if overrides and "config" not in arguments:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    arguments.overrides = overrides
    return arguments


def run_tool(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Parse the arguments, call the `tool` that they name, and return the exit code. A UserError is printed as one message."""
    logging.set_verbosity(logging.ERROR)
    try:
        arguments = parse_tool(parser, argv)
        arguments.tool(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return TO_MEND
    return DONE


def read_config(path: str, overrides: list[str]) -> ConfigDict:
    """Return the config that FILE.py or FILE.py:ARG makes, with `overrides` such as --config.batch_size=64, as `run` reads them.

    Raises UserError for what cannot be.
    """
    if not Path(path.partition(":")[0]).is_file():
        raise UserError(f"There is no config file {path.partition(':')[0]}.")
    values, argv = flags.FlagValues(), ["", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=argv)
    if unknown := _parse(values, argv)[1:]:
        raise UserError(_UNKNOWN.format(unknown))
    return values.config


def _parse(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """What of `argv` is no flag. Raises UserError for flags, or a config, that cannot be."""
    try:
        arguments = values(argv)
        values.config.seed  # noqa: B018  a config file that cannot be loaded says so only when it is read
    except (KeyError, AttributeError) as error:
        raise _unknown_option(error, argv) from error
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise _innermost_user_error(error) or UserError(str(error)) from error
    return arguments


class OldFlag(argparse.Action):
    """The old name of an option of `python -m mixer_jax`: does what --DEST does, says so, and is in no help."""

    def __init__(self, option_strings: list[str], dest: str, **options):
        super().__init__(option_strings, dest, **options | {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS})

    def __call__(self, parser, namespace, values, option_string=None):
        print(f"{option_string} is now --{self.dest.replace('_', '-')}.", file=sys.stderr)
        setattr(namespace, self.dest, self.const if self.nargs == 0 else values)


class MovedOption(argparse.Action):
    """An option of a tool that has become a program of its own. To use it is an error that names the program."""

    def __init__(self, option_strings: list[str], dest: str, program: str):
        super().__init__(option_strings, dest, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        self._program = program

    def __call__(self, parser, namespace, values, option_string=None):
        raise UserError(f"{option_string} is a program of its own now: {self._program}")


def stage(program: str, config: str, workdir: Path, *flags: str, output: TextIO | None = None) -> None:
    """Starts train.py or evaluate.py as a user would, and prints the command and its output (to `output` when that is given).

    Raises UserError when it does not end well.
    """
    command = [program, f"--config={config}", f"--workdir={workdir}", *flags]
    print(f"\n$ python {' '.join(command)}", flush=True, file=output)
    code = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=output, check=False).returncode
    if code != DONE:
        raise UserError(f"The stage in {workdir} ended with exit code {code}. The same command goes on from there.")


def _define_distributed_flags() -> None:
    """Flags that join the processes of a run; each may stand in the environment instead, under JAX's own names."""
    environment = os.environ.get
    flags.DEFINE_bool("distributed", False, "One process of several; ask the cluster (Cloud TPU, SLURM, ...) for the others.")
    flags.DEFINE_string("coordinator", environment("JAX_COORDINATOR_ADDRESS", ""), "HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", int(environment("JAX_NUM_PROCESSES", 0)), "With --coordinator: how many.")
    flags.DEFINE_integer("process_id", int(environment("JAX_PROCESS_ID", -1)), "With --coordinator: which one this is, from 0.")


def _exit_to_mend(error: Exception) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(TO_MEND)


def _innermost_user_error(error: BaseException | None) -> UserError | None:
    """What a config file raised itself, out of the errors that ml_collections and absl wrap around it."""
    found = None
    while error:
        found = error if isinstance(error, UserError) else found
        error = error.__cause__ or error.__context__
    return found


def _unknown_option(error: Exception, argv: list[str]) -> UserError:
    """ml_collections' error for an option that does not exist, with its whole path as it was typed."""
    match = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error))
    nearest, name = match.groups() if match else ("", str(error).strip("'\""))
    typed = next((arg.split("=")[0] for arg in argv if re.match(rf"--config\.(.*\.)?{re.escape(name)}\b", arg)), name)
    return UserError(
        f"The config has no option {typed}." + (f' Did you mean "{nearest}" instead of "{name}"?' if nearest else "")
    )
