"""The state of a job is read from its folder."""

import json
import shlex
import time
from pathlib import Path

import pytest
from sweep.made_runs import leave

from mixer_jax.errors import UserError
from mixer_jax.sweep.job import DONE, NOT_STARTED, OTHER, RUNNING, STARTED, Job, state_of

FIGURES = {"test": {"top1": 0.5}, "fewshot": {"5-shot": 0.4}}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("tests/tiny_config.py", ("--config.seed=3",), str(tmp_path / "run"))


def test_a_run_with_the_figures_of_its_last_step_is_done(job: Job):
    assert state_of(job).word == NOT_STARTED
    leave(job, FIGURES)
    assert state_of(job) == (DONE, FIGURES, "")


@pytest.mark.parametrize(
    ("evals", "step"),
    [(None, 0), (FIGURES, 20), ({"test": {"top1": 0.5}}, 0)],
    ids=["no results", "step 20", "an evaluator lacks"],
)
def test_a_run_before_its_end_is_started_and_goes_on(job: Job, evals: dict | None, step: int):
    leave(job, evals, step)
    assert state_of(job).word == STARTED


def test_a_run_that_is_asked_to_be_longer_is_not_done(job: Job):
    job = job._replace(flags=(*job.flags, "--config.schedule.decay=constant"))  # With another schedule, it is another run.
    leave(job, FIGURES)
    assert state_of(job).word == DONE
    assert state_of(job._replace(flags=(*job.flags, "--config.total.steps=40"))).word == STARTED


def test_another_evaluator_is_missing_and_fewer_are_not(job: Job):
    leave(job, FIGURES)
    more = ("--config.evals.more.data.source=digits", "--config.evals.more.data.split=test")
    assert state_of(job._replace(flags=(*job.flags, *more))).word == STARTED
    assert state_of(job._replace(flags=(*job.flags, "--config.evals.fewshot=None"))).word == DONE


@pytest.mark.parametrize("flag", ["resize_size=10", "data.split=train"])
def test_figures_that_were_made_on_other_images_are_not_those_that_are_wanted(job: Job, flag: str):
    leave(job, FIGURES)
    assert state_of(job._replace(flags=(*job.flags, f"--config.evals.test.{flag}"))).word == STARTED
    for harmless in ("batch_size=8", "every.steps=3"):
        assert state_of(job._replace(flags=(*job.flags, f"--config.evals.test.{harmless}"))).word == DONE


def test_a_run_with_other_options_is_another_run(job: Job):
    leave(job, FIGURES)
    state = state_of(job._replace(flags=("--config.seed=4", "--config.batch_size=8")))
    assert state.word == OTHER and state.reason == "batch_size=16 instead of 8, seed=3 instead of 4" and not state.evals


@pytest.mark.parametrize(("age", "word"), [(5, RUNNING), (100, STARTED)])
def test_a_run_that_gives_signs_of_life_is_running(job: Job, age: float, word: str):
    hosts = leave(job) / "hosts"
    hosts.mkdir()
    beat = {"host": 0, "machine": "a", "phase": "training", "step": 3, "step_time": 1.0, "time": time.time() - age}
    (hosts / "0.json").write_text(json.dumps(beat))
    assert state_of(job).word == word


@pytest.mark.parametrize("content", ['{"seed": "x"}', "{"])
def test_a_damaged_config_is_one_message(job: Job, content: str):
    (leave(job) / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        state_of(job)


def test_the_command_is_that_of_train_py():
    job = Job("f.py:a b", ("--config.data.split=train[:9%]",), "runs/x")
    assert shlex.split(job.command)[1:] == job.words == [
        "train.py", "--config=f.py:a b", "--workdir=runs/x", "--config.data.split=train[:9%]",
    ]  # fmt: skip
