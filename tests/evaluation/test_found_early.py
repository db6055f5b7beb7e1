"""What is wrong with an evaluator is found before the run has a folder, in train.py and evaluate.py alike, not when it runs."""

from pathlib import Path

import pytest
from conftest import ROOT
from ml_collections import ConfigDict

import evaluate
import train
from mixer_jax.config import classification, dataset
from mixer_jax.data.sources import registry
from mixer_jax.data.sources.digits import DigitsSource
from mixer_jax.errors import UserError

SHARDS = f"records:{ROOT}/tests/written_at_094b98b/data"
# Options of `evals`, and what the message says. Eight devices; 1438 digits to train on, of which 151 are zeros.
FAULTS = {
    "batch for 8 devices": ({"test.batch_size": 100}, r"100 images .* multiple of 8.* --config.evals.test.batch_size=104\."),
    "few-shot batch": ({"fewshot.batch_size": 12}, r"multiple of 8.* --config.evals.fewshot.batch_size=16\."),
    "negative batch": ({"test.batch_size": -8}, r"config.evals.test.batch_size is -8: it must be in \[0,"),
    "negative size": ({"fewshot.resize_size": -1}, r"config.evals.fewshot.resize_size is -1: it must be in \[0,"),
    "small size": ({"test.resize_size": 7}, "config.evals.test.resize_size is 7: it must be at least image_size=8"),
    "seed": ({"fewshot.seeds": (0, -1)}, r"config.evals.fewshot.seeds is \(0, -1\)"),
    "seeds": ({"fewshot.seeds": (3, 3)}, r"config.evals.fewshot.seeds is \(3, 3\): it must be different numbers"),
    "shots": ({"fewshot.shots": (1, 1000)}, r"fewshot.shots asks for 1000 labeled .*fewshot.train has 151 of '0' and too few"),
    "kind": ({"test.kind": "knn"}, "config.evals.test.kind is 'knn': it must be one of classification, fewshot"),
    "split": ({"test.data.split": "dev"}, "config.evals.test.data: digits has no split 'dev': it has train, test"),
    "few-shot split": ({"fewshot.test.split": "dev"}, "config.evals.fewshot.test: digits has no split 'dev'"),
    "source": (
        {"fewshot.train.source": "digit"},
        "config.evals.fewshot.train: data.source is 'digit': it must be digits",
    ),
    "no source": ({"test.data.source": ""}, "config.evals.test.data.source is '': it must be a source"),
    "empty split": (
        {"test.data.source": SHARDS, "test.data.split": "test[3:3]"},
        r"config.evals.test.data: .* has no record in split 'test\[3:3\]'",
    ),
    "folder": ({"test.data.source": "folder:/no/such"}, "config.evals.test.data: There is no folder /no/such"),
}


def put(evals: ConfigDict, path: str, value) -> None:
    *parents, last = path.split(".")
    for name in parents:
        evals = evals[name]
    evals[last] = value


@pytest.fixture
def tiny_config(tiny_config) -> ConfigDict:
    """The evaluators do not share their data."""
    tiny_config.evals.fewshot.test = dataset("digits", "test")
    return tiny_config


@pytest.mark.parametrize("program", ["train", "evaluate"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_an_evaluator_is_refused_before_there_is_a_folder(fault, program, tiny_run, tmp_path, tiny_config):
    changes, message = FAULTS[fault]
    for path, value in changes.items():
        put(tiny_config.evals, path, value)
    refuse(program, message, tiny_config, tiny_run, tmp_path / "out")


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_a_name_that_metrics_would_mix_up_is_refused(program, tiny_run, tmp_path, tiny_config):
    tiny_config.evals = {"test/top1": classification(dataset("digits", "test"))}
    refuse(program, "config.evals: the name 'test/top1' must be", tiny_config, tiny_run, tmp_path / "out")


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_a_split_without_labels_is_refused(program, tiny_run, tmp_path, tiny_config, monkeypatch):
    labels = DigitsSource.labels
    monkeypatch.setattr(DigitsSource, "labels", lambda self, i: (-1,) if self._split == "test" else labels(self, i))
    message = r"digits test record 0 has the labels \(-1,\)"
    refuse(program, message, tiny_config, tiny_run, tmp_path / "out")


def refuse(program: str, message: str, config: ConfigDict, run: Path, out: Path) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        if program == "train":
            train.train(config, str(out))
        else:
            evaluate.evaluate(config, str(run), str(out))
    assert not out.exists()


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_too_few_examples_of_a_class_are_found_before_the_first_step_also_where_labels_lie_with_images(
    tmp_path, tiny_run, tiny_config, monkeypatch, program
):
    monkeypatch.setattr(registry, "LABELS_WITHIN_RECORDS", ("digits",))
    tiny_config.evals.fewshot.shots = (1, 1000)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="shots asks for 1000 labeled"):
        if program == "train":
            train.train(tiny_config, str(out))
        else:
            evaluate.evaluate(tiny_config, str(tiny_run), str(out))
    assert not (out / "results.json").exists() and not (out / "metrics.jsonl").exists()
