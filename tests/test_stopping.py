"""Runs that are asked to stop in an evaluation save, end with 75, and go on with that evaluation to the same bits."""

import itertools
import os
import signal
from pathlib import Path

import pytest
from programs import finish, start_two, wait_for
from tiny_config import get_config

import train
from mixer_jax.app import DONE, STOPPED
from mixer_jax.evaluation.evaluators import Examples
from mixer_jax.records import read_metrics, read_results

pytestmark = pytest.mark.usefixtures("compiled_once")

TEST, FEWSHOT = 3, 12 + 3  # batches of 120 images
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


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("unbroken")
    assert train.train(small_config(), str(workdir)) == DONE
    return workdir


# What each start does: the batch of its evaluations at which it gets the signal, and the step that it saves.
STARTS = {
    "in the first evaluation": (2, 2),
    "when that is made up for, in the few-shot one": (TEST + 5, 2),
    "at the end": (TEST + FEWSHOT + 1, 4),
}


def test_a_stop_in_an_evaluation_ends_with_75_and_the_same_command_goes_on_with_it(
    unbroken: Path, tmp_path: Path, monkeypatch, capsys
):
    config, batches_of = small_config(), Examples.batches
    for signal_at, step in STARTS.values():
        count = itertools.count(1)

        def batches(examples, mesh, count=count, signal_at=signal_at):
            for batch in batches_of(examples, mesh):
                if next(count) == signal_at:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        monkeypatch.setattr(Examples, "batches", batches)
        assert train.train(config, str(tmp_path)) == STOPPED
        said = capsys.readouterr().out
        assert f"Stopped as asked in an evaluation: step {step} of {STEPS} is saved. The same command goes on from there." in said
        assert max(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()) == step
    monkeypatch.undo()
    assert train.train(config, str(tmp_path)) == DONE
    for name in ("step", "params_sha256", "evals", "evaluators"):
        assert read_results(tmp_path)[name] == read_results(unbroken)[name]
    assert rows(tmp_path) == rows(unbroken)


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
