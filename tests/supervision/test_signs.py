"""A supervised program that freezes is killed and started again. One that gives no signs of life at all is not judged."""

import os
import signal
import threading
from pathlib import Path

import pytest
from conftest import ROOT
from supervision.programs_to_supervise import write_program
from supervision.test_supervise import call, lines_of

from mixer_jax.endings import DONE
from mixer_jax.supervision import supervise
from mixer_jax.supervision.signs import ALIVE, LEAVING, VARIABLE, Signs, listen, make_pipe

# At its first start it does what its first argument says. It ends with 0.
SILENT = f"""
import os, pathlib, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from mixer_jax.supervision.signs import LEAVING, Signs
mark = pathlib.Path(sys.argv[-1].removeprefix("--workdir=")) / "started"
if mark.exists():
    sys.exit(0)
mark.touch()
if sys.argv[1] != "says nothing":
    Signs().give()
if sys.argv[1] == "leaves":
    Signs().give(LEAVING)
if sys.argv[1] == "freezes":
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(30 if sys.argv[1] == "hangs" else 1)
"""


@pytest.fixture(autouse=True)
def quick_end(monkeypatch):
    monkeypatch.setattr(supervise, "ABORT_SECONDS", 0.3)


@pytest.mark.parametrize(
    ("what", "end"),
    [("freezes", "SIGKILL"), ("hangs", "SIGABRT (as JAX does when another host is gone)"), ("leaves", ""), ("says nothing", "")],
)
def test_a_program_without_signs_of_life_is_killed_if_it_has_given_some(tmp_path: Path, capfd, what: str, end: str):
    program = write_program(tmp_path, SILENT)
    assert call(program, what, f"--workdir={tmp_path}", options=("--max-silence=0.4",)) == DONE
    said = lines_of(capfd.readouterr().err)
    if end:
        assert said[1].startswith("program.py gives no sign of life for 0.4 s: it is frozen, or C++ code holds Python's lock.")
        assert said[2:] == [
            f"program.py was ended by {end} without a checkpoint; again in 0.01 s",
            "start 2 of program.py, from the beginning",
            "program.py is done",
        ]
    else:
        assert said == ["start 1 of program.py, from the beginning", "program.py is done"]


def test_no_bound_is_no_bound(tmp_path: Path, capfd):
    assert call(write_program(tmp_path, SILENT), "sleeps", f"--workdir={tmp_path}", options=("--max-silence=0",)) == DONE
    assert lines_of(capfd.readouterr().err)[-1] == "program.py is done"


def test_signs_in_time_are_heard_until_the_program_ends():
    reading, writing, _ = make_pipe()
    silences = []
    listener = threading.Thread(target=listen, args=(reading, 0.5, lambda: silences.append(1)))
    listener.start()
    for sign in (ALIVE, ALIVE, LEAVING):
        os.write(writing, sign)
        listener.join(0.3)
        assert listener.is_alive()
    listener.join(0.7)
    assert listener.is_alive()
    os.close(writing)
    listener.join(5)
    assert not listener.is_alive() and not silences


@pytest.mark.parametrize("text", ["", "x", "3", "99999:1", "{file}:{inode}", "{writing}:1"])
def test_nothing_is_written_to_what_is_not_the_supervisors_pipe(tmp_path: Path, monkeypatch, text: str):
    reading, writing, _ = make_pipe()
    with open(tmp_path / "file", "wb") as file:
        numbers = {"file": file.fileno(), "inode": os.fstat(file.fileno()).st_ino, "writing": writing}
        monkeypatch.setenv(VARIABLE, text.format(**numbers))
        Signs().give()
    os.close(writing)
    assert (tmp_path / "file").read_bytes() == os.read(reading, 10) == b""
    os.close(reading)


def test_a_pipe_that_is_full_or_closed_is_no_fault(monkeypatch):
    reading, writing, text = make_pipe()
    monkeypatch.setenv(VARIABLE, text)
    signs = Signs()
    for _ in range(70):
        signs.give(ALIVE * 1000)
    previous = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.close(reading)
    signs.give()
    signal.signal(signal.SIGPIPE, previous)
    os.close(writing)


def test_only_the_program_has_the_pipe(monkeypatch):
    reading, writing, text = make_pipe()
    os.set_inheritable(writing, True)
    monkeypatch.setenv(VARIABLE, text)
    Signs().give()
    assert not os.get_inheritable(writing) and os.read(reading, 10) == ALIVE
    os.close(reading)
    os.close(writing)
