"""Runs that are asked to stop in an evaluation save, end with 75, and go on with that evaluation to the same bits."""

import os
import signal
from pathlib import Path

import pytest
from programs import finish, start_two, wait_for
from tiny_config import get_config

import train
from mixer_jax.endings import DONE, STOPPED
from mixer_jax.evaluation.evaluators import Examples
from mixer_jax.records import read_metrics, read_results

pytestmark = pytest.mark.usefixtures("compiled_once")

STEPS = 4


def small_config():
    """Four steps, with an evaluation in the middle, where no checkpoint is due."""
    config = get_config()
    config.total.steps = config.checkpoint.every.steps = STEPS
    config.model.num_blocks, config.augment.mixup = 1, 0.0
    for evaluator in config.evals.values():
        evaluator.every.steps, evaluator.batch_size = 2, 120
    return config


def rows(workdir: Path) -> dict[int, dict]:
    """All numbers by step that do not depend on the machine's speed."""
    timings = {"images_per_sec", "images_per_sec_per_device", "data_wait_share", "mfu"}
    merged: dict[int, dict] = {}
    for row in read_metrics(workdir):
        assert not merged.get(row["step"], {}).keys() & row.keys() - {"step"}, "nothing is written twice"
        merged.setdefault(row["step"], {}).update({name: value for name, value in row.items() if name not in timings})
    return merged


def count_batches(monkeypatch, signal_at: int | None = None) -> list[int]:
    """Let a run count the batches that it evaluates, in the list that is returned, and get a signal before one of them."""
    count, batches_of = [0], Examples.batches

    def batches(*arguments):
        for batch in batches_of(*arguments):
            count[0] += 1
            if count[0] == signal_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(Examples, "batches", batches)
    return count


# What each start does: the batch at which it gets the signal (of N in an evaluation of all), and the step that it saves.
STARTS = {
    "in the first batches": lambda n: (2, 2),
    "in the last one, made up for": lambda n: (n, 2),
    "at the end": lambda n: (n + 1, 4),
}


def test_a_stop_in_an_evaluation_ends_with_75_and_the_same_command_goes_on_with_it(tmp_path: Path, monkeypatch, capsys):
    config, unbroken, stopped = small_config(), tmp_path / "unbroken", tmp_path / "stopped"
    with monkeypatch.context() as patch:
        count = count_batches(patch)
        assert train.train(config, str(unbroken)) == DONE
    for start in STARTS.values():
        signal_at, step = start(count[0] // 2)
        with monkeypatch.context() as patch:
            count_batches(patch, signal_at)
            assert train.train(config, str(stopped)) == STOPPED
        said = capsys.readouterr().out
        assert f"Stopped as asked in an evaluation: step {step} of {STEPS} is saved. The same command goes on." in said
        assert max(int(folder.name) for folder in (stopped / "checkpoints").iterdir()) == step
    assert train.train(config, str(stopped)) == DONE
    for name in ("step", "params_sha256", "evals", "evaluators"):
        assert read_results(stopped)[name] == read_results(unbroken)[name]
    assert rows(stopped) == rows(unbroken)


def test_two_processes_leave_an_evaluation_at_the_same_batch_when_one_is_told_to(tmp_path: Path):
    flags = (f"--workdir={tmp_path}", "--config.total.steps=4")
    processes = start_two(*flags, "--config.evals.fewshot.batch_size=2")
    wait_for(lambda: (tmp_path / "checkpoints/4").is_dir(), processes[0])
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        assert "Stopped as asked in an evaluation: step 4 of 4 is saved." in finish(process, STOPPED)
    for process in start_two(*flags):
        finish(process)
    assert read_results(tmp_path)["evals"].keys() == {"test", "fewshot"}
