"""Tests of the best checkpoint by a figure: it is found, kept and found again, and impossible figures are refused."""

import json
import math
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict
from tiny_config import get_config

from mixer_jax.checkpoints.best import NONE, BestCheckpoint, find_best
from mixer_jax.checkpoints.manager import Checkpoints, load_run
from mixer_jax.checkpoints.run_paths import locate
from mixer_jax.errors import UserError
from mixer_jax.records import MetricWriter
from mixer_jax.validation import validate
from mixer_jax.workdir import Workdir

BEST = {  # Each case is (values by step, the steps with a checkpoint, whether lower is better, the best step).
    "the highest": ({1: 0.1, 2: 0.3, 3: 0.2}, [1, 2, 3], False, 2),
    "the lowest loss": ({1: 0.3, 2: 0.1, 3: 0.2}, [1, 2, 3], True, 2),
    "of equal ones the earliest": ({1: 0.1, 2: 0.3, 3: 0.3}, [1, 2, 3], False, 2),
    "of equal losses the earliest": ({1: 0.3, 2: 0.1, 3: 0.1}, [1, 2, 3], True, 2),
    "never what is not finite": ({1: math.nan, 2: 0.3, 3: None, 4: math.inf}, [1, 2, 3, 4], False, 2),
    "never a loss that is not finite": ({1: math.nan, 2: 0.3, 3: None, 4: -math.inf}, [1, 2, 3, 4], True, 2),
    "among those that are there": ({1: 0.1, 2: 0.3, 3: 0.2, 4: 0.9}, [1, 3], False, 3),
    "none before an evaluation": ({}, [1, 2], False, NONE),
    "none that is finite": ({1: math.nan, 2: None}, [1, 2], False, NONE),
    "none that is there": ({1: 0.5}, [2], False, NONE),
}


@pytest.mark.parametrize(("values", "steps", "is_loss", "best"), BEST.values(), ids=BEST)
def test_the_best_is(values, steps, is_loss, best):
    assert find_best(values, steps, is_loss=is_loss) == best


def with_best(best: str, every: int = 1) -> ConfigDict:
    config = get_config()
    config.checkpoint.best = best
    for evaluator in config.evals.values():
        evaluator.every.steps = every
    return config


@pytest.mark.parametrize("best", ["evals.test.top1", "evals.test.top5", "evals.test.loss", "evals.fewshot.top1_5shot", ""])
def test_a_figure_of_an_evaluator_can_choose_the_best(best):
    validate(with_best(best))


@pytest.mark.parametrize(
    "best", ["top1", "evals.dev.top1", "evals.test.top_1", "evals.test.examples", "evals.fewshot.top1_3shot"]
)
def test_a_figure_that_there_is_not_is_refused_with_those_that_there_are(best):
    with pytest.raises(
        UserError, match=rf"config\.checkpoint\.best is '{best}'.*evals\.fewshot\.top1_1shot, .*evals\.test\.loss"
    ):
        validate(with_best(best))


def test_a_figure_that_is_known_only_at_the_end_is_refused():
    with pytest.raises(UserError, match=r"evaluated only at the end.*--config\.evals\.test\.every\.steps"):
        validate(with_best("evals.test.top1", every=0))


FIGURES = {1: 0.2, 2: 0.9, 3: 0.9, 4: math.nan, 5: 0.1, 6: 0.95, 7: 0.3, 8: 0.4, 9: 0.1}


KEEP, TOTAL = 2, 9
STATE = {"params": {"head": {"bias": jnp.zeros(3)}}}


def go_on(workdir: Path, killed_at: int | None = None) -> None:
    """Continue a run that saves and then evaluates each step, to its end or until it is killed between the two."""
    run = Workdir(str(workdir))
    checkpoints = Checkpoints(run.path, KEEP)
    restored = checkpoints.restore_latest(STATE)
    step = restored[1]["step"] if restored else 0
    metrics = MetricWriter(run.path, step)
    best = BestCheckpoint("evals.test.top1", run, metrics, checkpoints)
    best.update()
    evaluated = not step or metrics.evaluated(step, "test")
    while step < TOTAL or not evaluated:
        if evaluated:
            step += 1
            checkpoints.save(step, STATE, {"step": step})
        if step == killed_at:
            checkpoints.finish()
            return
        metrics.write_evals(step, {"test": {"top1": FIGURES[step]}})
        best.update()
        evaluated = True
    checkpoints.finish()


@pytest.mark.parametrize("kills", [(), (2,), (4,), (6,), (1, 2, 3, 4, 5, 6, 7, 8, 9)], ids=str)
def test_the_best_is_kept_beside_the_last_ones_also_after_kills_between_saving_and_evaluating(kills, tmp_path: Path, capsys):
    for step in kills:
        go_on(tmp_path, step)
    go_on(tmp_path)
    said = capsys.readouterr().out
    assert [f"step {step}, kept in {tmp_path}/checkpoints/{step}." in said for step in FIGURES] == [
        s in (1, 2, 6) for s in FIGURES
    ]
    assert {folder.name for folder in (tmp_path / "checkpoints").iterdir()} == {"6", "8", "9"}
    best = {"figure": "evals.test.top1", "value": 0.95, "step": 6, "checkpoint": "checkpoints/6"}
    assert json.loads((tmp_path / "best.json").read_text()) == best
    assert locate(str(tmp_path / "best")) == locate(str(tmp_path / "checkpoints/6"))
    assert load_run(str(tmp_path / "best"))[1]["step"] == 6


def test_a_best_checkpoint_that_is_damaged_is_no_longer_the_best(tmp_path: Path):
    go_on(tmp_path)
    for step in (6, 9):
        shutil.rmtree(tmp_path / f"checkpoints/{step}")
    go_on(tmp_path)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 8


def test_a_run_without_the_option_has_no_best(tmp_path: Path):
    go_on(tmp_path)
    run = Workdir(str(tmp_path))
    BestCheckpoint("", run, MetricWriter(run.path, TOTAL), Checkpoints(run.path, KEEP)).update()
    with pytest.raises(UserError, match="has no best checkpoint"):
        load_run(str(tmp_path / "best"))
