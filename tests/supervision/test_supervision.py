"""The threads beside a run write its records, never end it by a fault of theirs, and end it at once when it stalls."""

import json
import os
import platform
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import train
from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.config import default_config
from mixer_jax.endings import DONE, STALLED
from mixer_jax.errors import EnvironmentFault
from mixer_jax.stopwatch import Stopwatch
from mixer_jax.supervision import supervision
from mixer_jax.supervision.recorded_starts import read_starts
from mixer_jax.supervision.supervision import Supervision
from mixer_jax.workdir import Workdir


@pytest.fixture
def run(tmp_path) -> Workdir:
    return Workdir(str(tmp_path / "run"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(supervision, "RECORD_SECONDS", 0.02)


def supervise(run: Workdir, stopwatch: Stopwatch) -> Supervision:
    return Supervision(run, stopwatch, default_config().watchdog)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def account(run: Workdir) -> list[dict]:
    file = run.path / "goodput.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def endings(run: Workdir) -> list[str]:
    return list(dict.fromkeys(row["ending"] for row in account(run)))


def heartbeat(run: Workdir) -> dict:
    file = run.path / "hosts/0.json"
    return json.loads(file.read_text()) if file.exists() else {}


def test_the_heartbeat_says_who_is_at_what_since_when(run):
    stopwatch, start = Stopwatch(), time.time()
    with supervise(run, stopwatch):
        wait_until(lambda: heartbeat(run))
        first = heartbeat(run)
        assert (first["step"], first["step_time"]) == (None, None)
        with stopwatch("training"):
            stopwatch.beat(40)
            wait_until(lambda: heartbeat(run)["step"] == 40 and heartbeat(run)["time"] > first["time"] + 0.1)
            last = heartbeat(run)
    assert (last["host"], last["machine"], last["pid"], last["phase"]) == (0, platform.node(), os.getpid(), "training")
    assert start <= first["time"] < last["time"] <= time.time() and start - 0.01 <= last["step_time"] < last["time"]
    written = heartbeat(run)
    time.sleep(0.1)
    assert heartbeat(run) == written  # The thread has ended with the run.


def test_the_account_is_written_while_a_run_goes_on_and_says_in_the_end_how_it_ended(run):
    stopwatch = Stopwatch()
    with supervise(run, stopwatch) as supervised:
        stopwatch.beat(0)
        wait_until(lambda: endings(run) == ["running"])
        supervised.ending = "stopped"
    assert endings(run) == ["stopped"]
    with pytest.raises(ZeroDivisionError), supervise(run, stopwatch):
        _ = 1 / 0
    assert endings(run) == ["stopped", "failed"]
    with supervise(run, stopwatch):
        pass
    assert endings(run) == ["stopped", "failed", "done"]


def test_a_record_that_cannot_be_written_is_said_once_and_never_ends_a_run(run, monkeypatch, capsys):
    attempts = []

    def fail(name: str, text: str) -> None:
        attempts.append(name)
        raise EnvironmentFault("gs://bucket/run cannot be written.")

    monkeypatch.setattr(run, "write_note", fail)
    stopwatch = Stopwatch()
    with supervise(run, stopwatch):
        stopwatch.beat(1)
        wait_until(lambda: len(attempts) > 3)
    said = "The run goes on without a record of its time or its heartbeat: gs://bucket/run cannot be written."
    assert capsys.readouterr().err.count(said) == 1
    assert endings(run) == ["done"]  # The other record is written all the same.


def test_a_link_in_the_place_of_the_folder_of_heartbeats_is_not_followed(run, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run.path / "hosts").symlink_to(elsewhere)
    with supervise(run, Stopwatch()):
        time.sleep(0.1)
    assert "hosts is a link to" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


def test_a_host_that_is_not_the_writer_writes_its_heartbeat_alone(run, monkeypatch):
    monkeypatch.setattr(supervision, "is_writer", lambda: False)
    monkeypatch.setattr(supervision.jax, "process_index", lambda: 3)
    other, stopwatch = Workdir(str(run.path), writer=False), Stopwatch()
    with supervise(other, stopwatch):
        stopwatch.beat(1)
        wait_until((run.path / "hosts/3.json").exists)
    assert {file.name for file in run.path.iterdir()} == {".lock", "hosts"}


# A program whose main thread never comes back, with a watchdog. The parts of the end that do not answer follow.
STALLS = """import os, sys, threading, time
from mixer_jax.config import default_config
from mixer_jax.stopwatch import Stopwatch
from mixer_jax.supervision import watchdog
from mixer_jax.supervision.watchdog import Watchdog, end_stalled
watchdog.WRITE_SECONDS, watchdog.END_SECONDS = 0.5, 3
never = lambda *_: time.sleep(1000)
write = lambda text: open(sys.argv[1], "w").write(text)
{}
def stand_still():
    threading.Lock().acquire()
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
bounds, stopwatch = default_config().watchdog, Stopwatch()
bounds.data_seconds = 1.0
with Watchdog(stopwatch, bounds, lambda stall: end_stalled(stall, write)), stopwatch("data"):
    stand_still()
"""
FAULTS = {
    "nothing": ("", True),
    "the disk": ("write = never", False),
    "the other hosts": ("watchdog.warn_hosts = never", True),
    "the terminal": ("end, filled = os.pipe(); os.dup2(filled, 2); os.set_blocking(2, False); os.write(2, b'a' * 10**6); "
                     "os.set_blocking(2, True)", False),
    "the folder, which is gone": ("sys.argv[1] = '/no/such/folder'", False),
    "the memory for a thread": ("watchdog.threading.Thread.start, start = never, threading.Thread.start\n"
                                "def once(self): watchdog.threading.Thread.start = fail; start(self)\n"
                                "def fail(self): raise RuntimeError('no more threads')\n"
                                "watchdog.threading.Thread.start = once", False),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_program_that_stalls_ends_with_its_code_within_seconds_whatever_does_not_answer(fault: str, tmp_path):
    broken, is_marked = FAULTS[fault]
    mark, start = tmp_path / "mark", time.monotonic()
    command = [sys.executable, "-c", STALLS.format(broken), str(mark)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == STALLED, ended.stderr
    assert time.monotonic() - start < 30
    said = "error: The run stands still: nothing has gone on for 1 s while waiting for data, and the bound is 1 s"
    if fault != "the terminal":
        assert said in ended.stderr
    if is_marked:
        for text in (ended.stderr, mark.read_text()):
            assert said in text and "in stand_still" in text
    else:
        assert not mark.exists()
    is_gone = fault == "the folder, which is gone"
    assert ("These stacks cannot be written to the run's folder: [Errno 2]" in ended.stderr) == is_gone


def test_the_account_has_the_steps_of_a_checkpoint_before_the_checkpoint_is_made(tiny_config, tmp_path, monkeypatch):
    """A start that is killed at once after that is accounted for up to there."""
    monkeypatch.setattr(supervision, "RECORD_SECONDS", 1000)
    save, recorded = Checkpoints.save, []

    def watched(self, step, items, meta):
        (start,) = read_starts(tmp_path / "run")
        recorded.append((step, start.last_step, start.ending))
        save(self, step, items, meta)

    monkeypatch.setattr(Checkpoints, "save", watched)
    tiny_config.total.steps = 10
    assert train.train(tiny_config, str(tmp_path / "run")) == DONE
    assert recorded == [(5, 5, "running"), (10, 10, "running")]
