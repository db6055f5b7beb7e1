"""The runs of a sweep: which they are, that what is held out is never trained on, and that no test split decides."""

import math
import shlex

import pytest

from mixer_jax.__main__ import make_parser
from mixer_jax.app import parse_tool
from mixer_jax.errors import UserError
from mixer_jax.sweep.cli import asked
from mixer_jax.sweep.grid import Sweep, best_of, choosing_jobs, final_jobs, folder_of, held_out, settings
from mixer_jax.sweep.job import config_of

RATES = {"optimizer.learning_rate": ("0.003", "0.01")}
DIGITS = Sweep("tests/tiny_config.py", ("--config.evals.fewshot=None",), RATES, (0, 1), "test", "top1", "runs/s")
FLOWERS = Sweep(
    "configs/finetune.py:flowers,448", ("--config.init_from=w", "--config.evals.test.resize=small"), RATES, (0, 1, 2),
    "dev", "top1", "runs/f", held_out("train+validation", "10%"),
)  # fmt: skip


def test_all_combinations_have_a_run_with_each_seed_and_a_folder_of_its_own():
    sweep = DIGITS._replace(vary=RATES | {"ema_decay": ("0.9", "0.99", "0")})
    jobs = [job for found in choosing_jobs(sweep).values() for job in found]
    assert len(settings(sweep)) == 6 and len(jobs) == 12 and len({job.workdir for job in jobs}) == 12
    for job in jobs:
        config = config_of(job)
        folder = f"optimizer.learning_rate={config.optimizer.learning_rate},ema_decay={config.ema_decay:g}"
        assert job.workdir == f"runs/s/choosing/{folder}/seed{config.seed}"
    assert final_jobs(sweep, settings(sweep)[0]) == []


def test_what_is_held_out_is_not_trained_on_and_evaluated_as_the_test_split_is():
    (first, *_), final = choosing_jobs(FLOWERS).values(), final_jobs(FLOWERS, settings(FLOWERS)[1])
    assert len(first) == 1 and len(final) == 3, "the paper chooses by one run each, and averages three"
    choosing, last = config_of(first[0]), config_of(final[2])
    assert choosing.data.split == "train[:90%]+validation[:90%]"
    assert choosing.evals.dev.data.split == "train[90%:]+validation[90%:]"
    assert list(choosing.evals) == ["dev"] and choosing.evals.dev.resize == "small" == last.evals.test.resize
    assert (last.data.split, last.evals.test.data.split, last.seed) == ("train+validation", "test", 2)
    assert last.optimizer.learning_rate == 0.01 and last.init_from == "w" == choosing.init_from


def test_without_held_out_images_only_the_evaluator_that_decides_is_used():
    flags = ("--config.evals.other.data.source=digits", "--config.evals.other.data.split=test")
    (jobs, *_) = choosing_jobs(DIGITS._replace(flags=flags, evaluator="other")).values()
    assert list(config_of(jobs[0]).evals) == ["other"]
    (jobs, *_) = choosing_jobs(DIGITS._replace(flags=flags, evaluator="fewshot")).values()
    assert list(config_of(jobs[0]).evals) == ["fewshot"]
    with pytest.raises(UserError, match=r"no evaluator 'dev', .* it has fewshot, test"):
        choosing_jobs(DIGITS._replace(flags=(), evaluator="dev"))


@pytest.mark.parametrize(
    ("split", "share", "splits"),
    [
        ("train", "1%", ("train[:99%]", "train[99%:]")),
        ("train+validation", "10%", ("train[:90%]+validation[:90%]", "train[90%:]+validation[90%:]")),
        ("train800val200", "train800,val200", ("train800", "val200")),
    ],
)
def test_a_share_is_the_end_of_each_split(split: str, share: str, splits: tuple[str, str]):
    assert held_out(split, share) == splits


@pytest.mark.parametrize(("split", "share"), [("train", "0%"), ("train", "100%"), ("train", "dev"), ("train[:50%]", "10%")])
def test_what_cannot_be_cut_off_is_refused(split: str, share: str):
    with pytest.raises(UserError, match="--hold-out="):
        held_out(split, share)


@pytest.mark.parametrize(
    ("metric", "figures", "best"),
    [
        ("top1", [[0.5, 0.6], [0.7, 0.5]], 1),
        ("top1", [[0.5], [0.5]], 0),
        ("top1", [[None], [0.1]], 1),
        ("top1", [[math.nan, 0.9], [0.1, 0.1]], 1),
        ("loss", [[2.0], [1.5]], 1),
        ("loss", [[2.0], [None]], 0),
    ],
)
def test_the_best_mean_is_chosen_and_what_diverged_never_is(metric: str, figures: list, best: int):
    sweep = DIGITS._replace(metric=metric)
    found = settings(sweep)
    assert best_of(sweep, dict(zip(found, figures, strict=True))) == found[best]


def test_nothing_is_chosen_if_all_diverged():
    with pytest.raises(UserError, match="all diverged"):
        best_of(DIGITS, {setting: [None] for setting in settings(DIGITS)})


def test_the_name_of_a_folder_has_no_slash():
    assert folder_of((("init_from", "gs://b/w"), ("seed", "1"))) == "init_from=gs___b_w,seed=1"


def parsed(*words: str) -> Sweep:
    return asked(parse_tool(make_parser(["sweep"]), ["sweep", *words]))


DEV = ("--select=evals.dev.top1", "--hold-out=1%")
TINY, RATE, DIR = "--config=tests/tiny_config.py", "--vary=optimizer.learning_rate=0.1,0.2", "--workdir=runs/s"


def test_the_command_of_a_sweep_asks_for_this_sweep():
    for sweep in (FLOWERS, DIGITS._replace(evaluator="fewshot", metric="5-shot", flags=())):
        words = shlex.split(sweep.command)[4:-1]
        assert parsed(*words)._replace(vary=dict(sweep.vary), seeds=tuple(sweep.seeds)) == sweep


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((TINY, DIR, *DEV), "at least one option"),
        ((TINY, DIR, *DEV, "--vary=optimizer.learning_rate"), "write --vary=OPTION=A,B"),
        ((TINY, DIR, *DEV, "--vary=optimizer.learning_rate=0.1,"), "write --vary=OPTION=A,B"),
        ((TINY, DIR, *DEV, RATE, RATE), "each option once"),
        ((TINY, DIR, *DEV, "--vary=seed=1,2"), "--seeds is for the seeds"),
        ((TINY, DIR, "--select=evals.fewshot.top1", "--vary=ema_decay=0.9,0.9"), "the same folder"),
        ((TINY, DIR, "--select=evals.fewshot.top1", "--vary=ema_dcay=0.9"), "ema_decay"),
        ((TINY, DIR, "--select=evals.fewshot.top1", "--vary=ema_decay=high"), "ema_decay"),
        ((TINY, DIR, "--select=dev.top1", RATE), "names no figure"),
        ((TINY, DIR, "--select=evals.test.top1", RATE), "would choose by the test split"),
        ((TINY, DIR, "--select=evals.val.top1", "--hold-out=train,val", RATE), "--select=evals.dev.top1"),
        ((TINY, DIR, "--select=evals.dev.top1", "--hold-out=train,train", RATE), "share images"),
        ((TINY, DIR, "--select=evals.dev.top1", "--hold-out=train,test", RATE), "nothing may be chosen by it"),
        ((TINY, DIR, *DEV, RATE), "digits cannot give"),
        ((TINY, DIR, "--select=evals.dev.top1", RATE), "no evaluator 'dev'"),
        ((TINY, DIR, "--select=evals.fewshot.top1", RATE, "--seeds=0,0"), "each seed once"),
        ((TINY, DIR, "--select=evals.fewshot.top1", RATE, "--seeds=a"), "whole numbers"),
        ((TINY, DIR, "--select=evals.fewshot.top1", RATE, "--config.no_option=1"), "no_option"),
    ],
)  # fmt: skip
def test_what_is_no_sweep_is_refused_before_anything_runs(words: tuple[str, ...], message: str):
    with pytest.raises(UserError, match=message):
        parsed(*words)
