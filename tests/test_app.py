"""How programs end: the same exception gives the same exit code in train.py, in evaluate.py and in every tool."""

import argparse
import asyncio
import errno
import gc
import io
import logging
import subprocess
import sys
import warnings
from types import SimpleNamespace

import programs
import pytest

from mixer_jax import app, endings
from mixer_jax.app import expand_home, read_config, run_tool
from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.endings import DONE, INTERRUPTED, STALLED, STOPPED, TO_MEND, TRY_AGAIN, ending
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.training.loop import DivergedError
from mixer_jax.training.unreadable_share import TooManyUnreadableError

BACKEND = "Unable to initialize backend"
CODES = [  # (exception, exit code, a part of the message)
    (UserError("set --x"), TO_MEND, "error: set --x"),
    (DivergedError("not finite"), TO_MEND, "error: not finite"),
    (TooManyUnreadableError("mend them"), TO_MEND, "error: mend them"),
    (UnreadableImageError("a damaged JPEG"), TO_MEND, "error: a damaged JPEG"),
    (FileNotFoundError(errno.ENOENT, "No such file", "/x"), TO_MEND, "error: No such file: /x"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), TO_MEND, "error: Permission denied: /x"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"), TO_MEND, "error: Not a directory: /x"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "/x"), TO_MEND, "error: File name too long: /x"),
    (EnvironmentFault("in use by process 7"), TRY_AGAIN, "error: in use by process 7"),
    (OSError(errno.ENOSPC, "No space left on device", "/x"), TRY_AGAIN, "No space left on device: /x. Make room there"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), TRY_AGAIN, "Disk quota exceeded: /x. Make room there"),
    (OSError(errno.EIO, "Input/output error", "/x"), TRY_AGAIN, "Input/output error: /x. See to it"),
    (OSError(errno.ESTALE, "Stale file handle"), TRY_AGAIN, "Stale file handle"),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), TRY_AGAIN, "Connection reset by peer"),
    (TimeoutError("timed out"), TRY_AGAIN, "error: timed out"),
    (RuntimeError(f"{BACKEND} 'tpu': The TPU is already in use by process 7"), TRY_AGAIN, "JAX finds no device"),
    (RuntimeError(f"{BACKEND} 'x': Backend 'x' is not in the list of known backends"), TO_MEND, "JAX finds no device"),
    (RuntimeError("a fault of ours"), TRY_AGAIN, "Traceback (most recent call last)"),
    (MemoryError(), TRY_AGAIN, "MemoryError"),
    (KeyboardInterrupt(), INTERRUPTED, "Interrupted, without saving. What was saved before is kept."),
]


def raised(error: BaseException):
    def tool(*_):
        raise error

    return tool


@pytest.mark.parametrize(("error", "code", "message"), CODES, ids=lambda value: type(value).__name__)
def test_a_tool_ends_as_the_table_says(error, code, message, capsys):
    parser = argparse.ArgumentParser()
    parser.set_defaults(tool=raised(error))
    assert run_tool(parser, []) == code
    said = capsys.readouterr().err
    assert message in said and ("Traceback" in said) == (not ending(error).expected)


class Hosts:
    """A stand-in for the other hosts of the run."""

    def __init__(self):
        self.calls = []

    def leave(self):
        self.calls.append("leave")

    def fail(self, code, message):
        self.calls.append((code, message))


@pytest.fixture
def start(monkeypatch):
    """Run `main` as train.py does, and return the exit code."""
    monkeypatch.setattr(app, "_mute_stderr", lambda: None)
    for name in ("define_config", "flags.DEFINE_string", "flags.mark_flags_as_required"):
        monkeypatch.setattr(f"mixer_jax.app.{name}", lambda *_, **__: None)
    ended = []
    monkeypatch.setattr(app.app, "run", lambda guarded, flags_parser: ended.append(guarded(["train.py"])))

    def start(main, hosts: Hosts) -> int:
        app.run(main, lambda _: hosts)
        return ended[-1]

    return start


@pytest.mark.parametrize(("error", "code", "message"), CODES, ids=lambda value: type(value).__name__)
def test_a_program_ends_as_the_table_says_and_tells_its_hosts(error, code, message, start, capsys):
    hosts = Hosts()
    assert start(raised(error), hosts) == code
    assert message in capsys.readouterr().err
    (told,) = hosts.calls
    assert told[0] == code and told[1] and not told[1].startswith("error: ")


@pytest.mark.parametrize("code", [DONE, STOPPED])
def test_a_program_that_comes_to_its_end_waits_for_its_hosts(code, start):
    hosts = Hosts()
    assert start(lambda _: code, hosts) == code and hosts.calls == ["leave"]


def test_the_codes_of_the_table_are_those_of_the_program():
    documented = {int(line.split()[0]) for line in endings.__doc__.splitlines() if line[:1].isdecimal()}
    assert documented == {DONE, TRY_AGAIN, TO_MEND, STOPPED, STALLED, INTERRUPTED, 143}


@pytest.mark.parametrize("name", ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
@pytest.mark.parametrize("text", ["two", "1.5", "0x1"])
def test_a_number_in_the_environment_that_is_none_is_refused_by_name(name, text, monkeypatch):
    monkeypatch.setenv(name, text)
    with pytest.raises(UserError, match=f"{name}={text}: it must be a whole number"):
        app._define_distributed_flags()


def test_a_stage_ends_with_the_kind_of_its_code(monkeypatch, tmp_path):
    monkeypatch.setattr(app, "ROOT", tmp_path)
    for code, kind in ((TO_MEND, UserError), (TRY_AGAIN, EnvironmentFault), (STOPPED, EnvironmentFault), (-9, EnvironmentFault)):
        (tmp_path / "train.py").write_text(f"import os\nos._exit({code}) if {code} > 0 else os.kill(os.getpid(), {-code})")
        with pytest.raises(kind, match=rf"ended with exit code {code}\."):
            app.stage("train.py", "configs/x.py", tmp_path)


HOSTILE = {
    "\x1b[2J\x1b]0;title\x07": "?[2J?]0;title?",
    "a\rb": "a?b",
    "\u202eabc": "?abc",
    "tab\tline\n": "tab\tline\n",
    "\u00e9": "\u00e9",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_nothing_that_a_file_says_moves_the_cursor(text, shown, capsys):
    def tool(_):
        print(text)
        raise UserError(text)

    parser = argparse.ArgumentParser()
    parser.set_defaults(tool=tool)
    run_tool(parser, [])
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{shown}\n", f"error: {shown}\n")


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"gr??e ? ok"), ("latin-1", b"gr\xf6\xdfe ? ok"), ("utf-8", None)])
def test_what_the_terminal_cannot_show_is_a_question_mark(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    print("gr\u00f6\u00dfe \udcff ok", end="", file=app.PrintableOutput(stream))
    assert stream.buffer.getvalue() == (shown or "gr\u00f6\u00dfe ? ok".encode())


def test_what_a_tool_prints_is_whole_however_long(capsys):
    parser = argparse.ArgumentParser()
    parser.set_defaults(tool=lambda _: print("{\n" + "x" * 10**5 + "\u00e9}"))
    run_tool(parser, [])
    assert len(capsys.readouterr().out) == 10**5 + 5


def test_a_config_file_that_exits_is_not_taken_for_a_run_that_is_done(tmp_path):
    (tmp_path / "config.py").write_text("import sys\nsys.exit(3)\n")
    for flags, code in (((), 3), (("--help",), DONE)):
        process = programs.start(f"--workdir={tmp_path / 'run'}", *flags, config=f"--config={tmp_path / 'config.py'}")
        programs.finish(process, code)


@pytest.mark.parametrize(("text", "shown"), [("Event loop is closed", False), ("a fault of ours", True)])
def test_writes_that_orbax_has_abandoned_print_no_tracebacks(text, shown, capsys):
    arguments = SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.__unraisablehook__", lambda unraisable: print(unraisable.exc_value))
        app._report_unraisable(arguments)
    assert (text in capsys.readouterr().out) == shown


@pytest.mark.parametrize(("file", "shown"), [("/x/orbax/serialization.py", 0), ("/x/ours.py", 3)])
def test_asyncio_logs_no_further_write_of_a_checkpoint_that_failed(file, shown, monkeypatch, caplog):
    """The first error is raised. asyncio logs the others when the garbage collector finds them."""
    for name in ("absl", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    app._quiet_libraries()
    code: dict = {}
    exec(compile("async def write(error): raise error", file, "exec"), code)

    async def write_all() -> None:
        await asyncio.wait([asyncio.ensure_future(code["write"](OSError(number, "disk is full"))) for number in range(3)])

    asyncio.run(write_all())
    gc.collect()
    assert [record.name for record in caplog.records] == ["asyncio"] * shown


@pytest.mark.parametrize(("name", "shown"), [("async_serialize_from_host", 0), ("Handler.deserialize", 0), ("ours", 1)])
def test_python_does_not_warn_of_writes_of_a_checkpoint_that_had_not_begun(name, shown):
    async def write() -> None:
        pass

    write.__qualname__ = name
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        app._quiet_libraries()
        write()
        gc.collect()
    assert len(caught) == shown


INTERRUPTED_IN_THE_COLLECTOR = """
import argparse, gc, signal, sys, time
from mixer_jax.app import run_tool

signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell makes what it starts in the background ignore Ctrl-C.

def interrupt(phase, info):
    gc.callbacks.remove(interrupt)
    signal.raise_signal(signal.SIGINT)
    return len(phase)

def wait(arguments):
    gc.callbacks.append(interrupt)
    gc.collect()
    print("collected", flush=True)
    time.sleep(50)

parser = argparse.ArgumentParser()
parser.set_defaults(tool=wait)
sys.exit(run_tool(parser, []))
"""


def test_a_ctrl_c_that_python_cannot_raise_is_not_lost():
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED_IN_THE_COLLECTOR], capture_output=True, text=True, timeout=40)
    assert (ended.returncode, ended.stdout) == (INTERRUPTED, "collected\n")
    assert ended.stderr == f"{ending(KeyboardInterrupt()).message}\n"


LEAVES_A_THREAD = """import atexit, sys, threading, time; sys.path[:0] = [""]; sys.argv[0] = "train.py"
import train
from mixer_jax import app, endings
from mixer_jax.errors import EnvironmentFault

def check_workdir(path):
    threading.Thread(target=time.sleep, args=(300,)).start()
    atexit.register(print, "cleaned up")
    raise EnvironmentFault("no bucket")

train.check_workdir = check_workdir
app.run(train.main, train.join, workdir="")
"""


def test_a_program_that_fails_does_not_wait_for_threads_of_libraries(tmp_path):
    said = programs.finish(programs.start(f"--workdir={tmp_path}", program=LEAVES_A_THREAD), TRY_AGAIN)
    assert said == "error: no bucket\ncleaned up\n"


def test_a_message_has_an_end(capsys):
    parser = argparse.ArgumentParser()
    parser.set_defaults(tool=raised(UserError("x" * 10**6)))
    run_tool(parser, [])
    assert len(capsys.readouterr().err) < 21_000


FAILING = {
    "an import": ("from configs import finetun\n", "line 1: ImportError: cannot import name 'finetun'"),
    "a name": ("def get_config():\n    return default_config()\n", "line 2: NameError: name 'default_config' is not defined"),
    "its syntax": ("def get_config(:\n", "line 1: SyntaxError: invalid syntax"),
    "an assertion": ("\n\nassert False\n", "line 3: AssertionError"),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_config_file_that_fails_is_named_with_the_line(case, tmp_path):
    text, message = FAILING[case]
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=f"The config file fails in {tmp_path}/mine.py, {message}"):
        read_config(str(tmp_path / "mine.py"), [])


HOME_PATHS = {
    "~/w.npz": "/home/me/w.npz",
    "~": "/home/me",
    "--workdir=~/runs/a": "--workdir=/home/me/runs/a",
    "folder:~/photos": "folder:/home/me/photos",
    "--config.data.source=records:~/data": "--config.data.source=records:/home/me/data",
    "a~/b": "a~/b",
    "--config.evals.test.data.split=train~": "--config.evals.test.data.split=train~",
    "x/~/y": "x/~/y",
    "~nobody-of-that-name/x": "~nobody-of-that-name/x",
}


@pytest.mark.parametrize("word", HOME_PATHS)
def test_a_home_folder_may_be_typed_wherever_a_path_begins(monkeypatch, word: str):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home([word]) == [HOME_PATHS[word]]


def test_without_a_home_folder_the_word_that_needs_one_is_refused(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UserError, match="set HOME, or write whole paths"):
        expand_home(["--workdir=~/runs/a"])
    assert expand_home(["--workdir=runs/a"]) == ["--workdir=runs/a"]
