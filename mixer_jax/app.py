"""The start and the end of every program: flags, and errors as one message. endings.py has the exit codes."""

import argparse
import atexit
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, TextIO

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from mixer_jax.config_files import define_config, typed_paths, use_locations, without_switches
from mixer_jax.endings import DONE, INTERRUPTED, NO_HOME, TO_MEND, TRY_AGAIN, Ending, ending
from mixer_jax.environment import check_environment
from mixer_jax.errors import EnvironmentFault, UserError, as_message, printable

INTERRUPT_AGAIN_SECONDS = 0.1
ROOT = Path(__file__).parents[1]
IS_CLONE = (ROOT / "train.py").is_file()  # An installation has the package alone.
_UNKNOWN = "Unknown arguments {}: options are written --name=value."


class PrintableOutput:
    """A standard output that shows ? for control characters, and for characters that its encoding does not have."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        encoding = self._stream.encoding or "utf-8"
        shown = text if text.isprintable() else printable(text)
        return self._stream.write(shown.encode(encoding, "replace").decode(encoding))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Membership(Protocol):
    """The membership of this process in the hosts of a run."""

    def leave(self) -> None:
        """Wait until all hosts have ended."""

    def fail(self, code: int, message: str) -> None:
        """Tell the other hosts, so that they end too. If there are other hosts, end this process."""


def run(
    main: Callable[[flags.FlagValues], int],
    join: Callable[[flags.FlagValues], Membership],
    config_of: tuple[str, Callable[[str], str]] | None = None,
    **required: str,
) -> None:
    """Run a program: parse its command line, join the other hosts, call `main`, and exit with the code that it returns.

    The command line has --config, the `required` flags, and the flags of a pod. An exception that `ending` expects is printed as
    one message, without a traceback.

    Args:
      main: The program, as a function of the flags.
      join: Joins the hosts of the run.
      config_of: For a program whose --config may be left out: the flag that then decides, and the function that returns the file
        of the config for the value of that flag.
      required: The names of required flags, with their help.
    """
    try:
        sys.argv = expand_home(sys.argv)
    except UserError as error:
        sys.exit(_report(ending(error)))
    if config_of:
        _complete_config(sys.argv, *config_of)
    define_config(flags.FLAGS, sys.argv)
    for name, text in required.items():
        flags.DEFINE_string(name, None, text)
    flags.mark_flags_as_required(["config", *required])
    sys.unraisablehook = _report_unraisable

    def parse(argv: list[str]) -> list[str]:
        try:
            _define_distributed_flags()
            arguments = _parse(flags.FLAGS, argv)
            if moved := use_locations(flags.FLAGS):
                print("Set by --data-locations:", *(f"--config.{path}={value}" for path, value in moved.items()))
        except (UserError, EnvironmentFault, OSError) as error:
            sys.exit(_report(ending(error)))
        except SystemExit as error:
            sys.exit(DONE if _asks_for_help(argv) else error.code)  # absl exits with 1 after printing help.
        if not flags.FLAGS["verbosity"].present:
            _quiet_libraries()  # --verbosity=0 shows their messages.
        return arguments

    def guarded(argv: list[str]) -> int:
        hosts = None
        try:
            if len(argv) > 1:
                raise UserError(_UNKNOWN.format(argv[1:]))
            hosts = join(flags.FLAGS)
            with contextlib.redirect_stdout(PrintableOutput(sys.stdout)):
                code = main(flags.FLAGS)
            hosts.leave()
            return code
        except (Exception, KeyboardInterrupt) as error:
            end = ending(error)
            _report(end)
            if end.expected:
                _mute_stderr()
            if hosts:
                hosts.fail(end.code, end.message.removeprefix("error: "))
            return end.code

    try:
        app.run(guarded, flags_parser=parse)
    except SystemExit as end:
        if end.code in (TRY_AGAIN, TO_MEND, INTERRUPTED):
            _end_without_threads(end.code)
        raise


def _end_without_threads(code: int) -> NoReturn:
    """End this process, and do not wait for threads that libraries have left.

    If Orbax cannot make the folder of a step, for example, several of its threads wait for it for ten minutes.
    """
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # Whoever read them may be gone.
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def expand_home(argv: Sequence[str]) -> list[str]:
    """Return the command line with home folders in place of ~ and ~USER at the beginning of a path.

    A path begins with a word, after "=" or after "KIND:". Shells expand only the first of these. Raises UserError if no home
    folder is known.
    """

    def home(match: re.Match) -> str:
        folder = os.path.expanduser(match[2])
        if folder == match[2] == "~":
            raise UserError(NO_HOME)
        return match[1] + folder

    return [re.sub(r"(^|[=:])(~[\w.-]*)(?=/|$)", home, word) for word in argv]


def _complete_config(argv: list[str], flag: str, file_of: Callable[[str], str]) -> None:
    """Add --config to `argv` if it is missing: the file that `file_of` returns for the value of `flag`."""
    text = "\n".join(argv[1:]) + "\n"
    named = re.search(rf"^--?{flag}[=\n](.+)$", text, re.MULTILINE)
    if named and not re.search(r"^--?config[=\n]", text, re.MULTILINE):
        try:
            argv.insert(1, f"--config={file_of(named[1])}")
        except UserError as error:
            sys.exit(_report(ending(error)))
        print(f"The config is that of the run: {argv[1]}")


def _asks_for_help(argv: list[str]) -> bool:
    return any(re.fullmatch(r"--?(help|helpshort|helpfull|helpxml|\?)(=true)?", argument) for argument in argv[1:])


def _quiet_libraries() -> None:
    """Hide the messages of libraries below errors, and all about Orbax.

    Orbax logs every exception that it raises at length. When one write of a checkpoint fails, it raises the error of that one,
    and asyncio logs those of all others, with a traceback each. Python warns of writes that had not begun.
    """
    absl_logging.set_verbosity(absl_logging.ERROR)
    for logger in (absl_logging.get_absl_logger(), logging.getLogger("asyncio")):
        logger.addFilter(_is_not_about_orbax)
    warnings.filterwarnings("ignore", r"coroutine '[\w.]*serialize", RuntimeWarning)


def _is_not_about_orbax(record: logging.LogRecord) -> bool:
    """Return whether neither the code that logs, nor the message, nor the exception's traceback names Orbax."""
    lines = traceback.format_exception(record.exc_info[1]) if record.exc_info else []
    return not any("orbax" in text for text in (record.pathname, record.getMessage(), *lines))


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Print an exception that Python could not raise where it arose, except those of writes that Orbax has abandoned.

    A Ctrl-C that arrives in a destructor or a callback of the garbage collector would be lost, and the program would go on. It is
    sent again by a thread, because it would be lost in this function too.

    When one write of a checkpoint fails, Orbax closes its event loop. Each write that ends later then causes an exception in a
    thread of TensorStore. On a full disk these were hundreds of tracebacks around the one useful message.
    """
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        main_thread = threading.main_thread().ident
        threading.Timer(INTERRUPT_AGAIN_SECONDS, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    elif str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _mute_stderr() -> None:
    """Hide what libraries print at the end of the process about a fault that has been reported already."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _report(end: Ending) -> int:
    """Print the message, or the traceback of an exception that is not expected. Return the exit code."""
    if end.expected:
        print(as_message(end.message), file=sys.stderr, flush=True)
    else:
        traceback.print_exc()
    return end.code


def parse_tool(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments of a tool. `overrides` has those that are options of its --config."""
    arguments, overrides = parser.parse_known_args(argv)
    if overrides and "config" not in arguments:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    arguments.overrides = overrides
    return arguments


def run_tool(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Parse the arguments, call the tool that they name, and return the exit code."""
    _quiet_libraries()
    sys.unraisablehook = _report_unraisable
    try:
        arguments = parse_tool(parser, expand_home(argv if argv is not None else sys.argv[1:]))
        check_environment()
        with contextlib.redirect_stdout(PrintableOutput(sys.stdout)):
            arguments.tool(arguments)
    except (Exception, KeyboardInterrupt) as error:
        return _report(ending(error))
    return DONE


def read_config(path: str, overrides: list[str]) -> ConfigDict:
    """Return the config of FILE.py or FILE.py:ARG, with `overrides` such as --config.batch_size=64, as `run` reads it.

    One of the overrides may be --data-locations=FILE.

    Raises UserError for a file, an argument or an override that is refused.
    """
    if IS_CLONE and str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))  # A config anywhere may import the shipped configs.
    values, argv = flags.FlagValues(), ["", f"--config={path}", *overrides]
    define_config(values, argv)
    if unknown := _parse(values, argv)[1:]:
        raise UserError(_UNKNOWN.format(unknown))
    use_locations(values)
    return values.config


def typed_options(values: flags.FlagValues) -> tuple[ConfigDict, frozenset[str]]:
    """Return the config as its file returns it, and the paths of the options that were typed, such as "data.source"."""
    return read_config(config_flags.get_config_filename(values["config"]), []), typed_paths(values)


def _parse(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Parse the flags, and return the arguments that are not flags. Raises UserError for flags or a config that are refused."""
    try:
        arguments = values(without_switches(argv))
    except (KeyError, AttributeError) as error:
        raise _unknown_option(error, argv) from error
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise _innermost_user_error(error) or UserError(str(error)) from error
    return arguments


def local_path(text: str) -> str:
    """Return a path of this machine, for argparse's `type=`. Without this check, a URL would name a new folder such as gs:/."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is a URL, and this must be a path of this machine.")
    return text


class OldFlag(argparse.Action):
    """An old name of the option --DEST of a command. It works like --DEST, prints the new name, and is in no help."""

    def __init__(self, option_strings: list[str], dest: str, **options):
        super().__init__(option_strings, dest, **options | {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS})

    def __call__(self, parser, namespace, values, option_string=None):
        """Set the option under its new name."""
        print(f"{option_string} is now --{self.dest.replace('_', '-')}.", file=sys.stderr)
        setattr(namespace, self.dest, self.const if self.nargs == 0 else values)


class MovedOption(argparse.Action):
    """An option that has become a program of its own. Using it is an error that names the program."""

    def __init__(self, option_strings: list[str], dest: str, program: str):
        super().__init__(option_strings, dest, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        self._program = program

    def __call__(self, parser, namespace, values, option_string=None):
        """Raise the error."""
        raise UserError(f"{option_string} is a program of its own now: {self._program}")


def stage(program: str, config: str, workdir: Path, *flags: str, output: TextIO | None = None) -> None:
    """Run train.py or evaluate.py as a user would, and print the command and its output, to `output` if that is given.

    Raises UserError when a person must change something, and EnvironmentFault when the same command may succeed later.
    """
    command = [program, f"--config={config}", f"--workdir={workdir}", *flags]
    print(f"\n$ python {' '.join(command)}", flush=True, file=output)
    code = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=output, check=False).returncode
    if code != DONE:
        kind = UserError if code == TO_MEND else EnvironmentFault
        raise kind(f"The stage in {workdir} ended with exit code {code}. The same command goes on from there.")


def _define_distributed_flags() -> None:
    """Define the flags that join the processes of a run. JAX's environment variables may take the place of most of them."""
    address, count = os.environ.get("JAX_COORDINATOR_ADDRESS", ""), _environment_integer("JAX_NUM_PROCESSES", 0)
    process_id = _environment_integer("JAX_PROCESS_ID", -1)
    flags.DEFINE_bool("distributed", False, "One process of several; ask the cluster (Cloud TPU, SLURM, ...) for the others.")
    flags.DEFINE_string("coordinator", address, "HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", count, "With --coordinator: how many.")
    flags.DEFINE_integer("process_id", process_id, "With --coordinator: which one this is, from 0.")
    flags.DEFINE_integer("join_timeout", 300, "Seconds to wait for the other processes to start.", lower_bound=1)


def _environment_integer(name: str, default: int) -> int:
    """Return an environment variable as an integer. Raises UserError if it is not one."""
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise UserError(f"The environment has {name}={text}: it must be a whole number.") from None


def _innermost_user_error(error: BaseException | None) -> UserError | None:
    """Return the UserError that a config file raised, out of the errors that ml_collections and absl wrapped around it."""
    found = None
    while error:
        found = error if isinstance(error, UserError) else found
        error = error.__cause__ or error.__context__
    return found


def _unknown_option(error: Exception, argv: list[str]) -> UserError:
    """Return the error for an option that does not exist, with its whole path as it was typed, from that of ml_collections."""
    match = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error))
    nearest, name = match.groups() if match else ("", str(error).strip("'\""))
    typed = next((arg.split("=")[0] for arg in argv if re.match(rf"--config\.(.*\.)?{re.escape(name)}\b", arg)), name)
    return UserError(
        f"The config has no option {typed}." + (f' Did you mean "{nearest}" instead of "{name}"?' if nearest else "")
    )
