"""Whole runs whose decoding processes stand still: they end with the watchdog's code, and go on to the same bits."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from programs import finish, start, start_two, wait_for

from mixer_jax.endings import DONE, STALLED, TRY_AGAIN
from mixer_jax.records import read_results

pytestmark = pytest.mark.slow

DECODING = ("--config.loader.processes=true", "--config.evals.fewshot.shots=(1,)", "--config.checkpoint.every.steps=1")
BOUND = 30  # On a busy machine the processes that decode need some seconds to start.
QUICK = (f"--config.watchdog.data_seconds={BOUND}",)


def children(process_id: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process_id)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


@contextlib.contextmanager
def decoding_stopped(process: subprocess.Popen):
    """Stop all processes that decode images for a run. They are the children of its fork server."""
    workers = [worker for server in children(process.pid) for worker in children(server)]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def digest(workdir: Path) -> str:
    return read_results(workdir)["params_sha256"]


def endings(workdir: Path) -> dict[int, str]:
    rows = map(json.loads, (workdir / "goodput.jsonl").read_text().splitlines())
    return {row["start"]: row["ending"] for row in rows}


def stalled_seconds(workdir: Path) -> float:
    rows = map(json.loads, (workdir / "goodput.jsonl").read_text().splitlines())
    return sum(row["seconds"] for row in rows if row["phase"] == "stalled")


def test_a_run_that_waits_for_data_forever_ends_with_the_stacks_and_the_same_command_goes_on_to_the_same_bits(tmp_path: Path):
    whole, stalled = tmp_path / "whole", tmp_path / "stalled"
    finish(start(f"--workdir={whole}", *DECODING, *QUICK))
    process = start(f"--workdir={stalled}", *DECODING, *QUICK)
    wait_for(lambda: (stalled / "checkpoints/3").is_dir(), process)
    with decoding_stopped(process):
        began = time.monotonic()
        said = finish(process, STALLED)
        assert time.monotonic() - began < BOUND + 30
    assert re.search(r"error: The run stands still: nothing has gone on for \d+ s while waiting for data after step \d+,", said)
    assert "in _read_ahead" in said and "in train" in said  # The stack of the thread that waits.
    (mark,) = (stalled / "stalled").iterdir()
    assert re.fullmatch(r"host-0-\d+\.txt", mark.name) and "in _read_ahead" in mark.read_text()
    assert endings(stalled) == {0: "stalled"} and stalled_seconds(stalled) > BOUND - 1
    finish(start(f"--workdir={stalled}", *DECODING, *QUICK))
    assert endings(stalled) == {0: "stalled", 1: "done"}
    assert digest(stalled) == digest(whole)


def test_a_process_that_is_stopped_and_continued_is_not_at_fault(tmp_path: Path):
    process = start(f"--workdir={tmp_path}", *DECODING, *QUICK)
    wait_for(lambda: (tmp_path / "checkpoints/3").is_dir(), process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(BOUND + 5)
    process.send_signal(signal.SIGCONT)
    finish(process, DONE)
    assert endings(tmp_path) == {0: "done"} and not (tmp_path / "stalled").exists()


def test_all_hosts_end_when_one_stalls_with_the_stacks_of_each_and_go_on_as_one(tmp_path: Path):
    flags = (f"--workdir={tmp_path}", *DECODING, *QUICK)
    processes = start_two(*flags)
    wait_for(lambda: (tmp_path / "checkpoints/3").is_dir(), processes[0])
    with decoding_stopped(processes[1]):
        began = time.monotonic()
        second = finish(processes[1], STALLED)
        first = finish(processes[0], TRY_AGAIN)
        assert time.monotonic() - began < BOUND + 60
    assert "error: The run stands still" in second and "in _read_ahead" in second
    assert re.search(r"error: host 1 \(.+\) stopped: The run stands still: nothing has gone on for \d+ s while waiting", first)
    assert "in train" in first  # Where this host waited for the other.
    assert [mark.name.rsplit("-", 1)[0] for mark in (tmp_path / "stalled").iterdir()] == ["host-1"]
    assert {file.name for file in (tmp_path / "hosts").iterdir()} == {"0.json", "1.json"}
    finish(start(*flags))
    assert read_results(tmp_path)["step"] == 30
