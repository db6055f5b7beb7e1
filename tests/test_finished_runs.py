"""Finished runs evaluate what is new, can be made longer where that is meaningful, and say what they began with."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from tiny_config import get_config

import train
from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.weights import load_weights
from mixer_jax.config import classification, dataset, duration
from mixer_jax.endings import DONE
from mixer_jax.errors import UserError
from mixer_jax.evaluation.example_predictions import read_predictions
from mixer_jax.records import predictions_file, read_metrics, read_results
from mixer_jax.storage import write_json
from mixer_jax.training.program import Program

pytestmark = pytest.mark.usefixtures("compiled_once")


def small_config(steps: int) -> ConfigDict:
    config = get_config()
    config.total.steps, config.schedule.decay, config.schedule.warmup.steps = steps, "constant", 0
    config.model.num_blocks, config.augment.mixup = 1, 0.0
    config.evals = {"test": classification(dataset("digits", "test"), resize_size=8, batch_size=120, every=duration(steps=1))}
    config.checkpoint.best = "evals.test.loss"
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run of 2 steps that was then made one of 4."""
    workdir = tmp_path_factory.mktemp("finished")
    for steps in (2, 4):
        assert train.train(small_config(steps), str(workdir)) == DONE
    return workdir


def test_a_run_that_is_made_longer_ends_with_the_bits_of_one_that_was_as_long_from_its_first_step(finished: Path, tmp_path: Path):
    assert train.train(small_config(4), str(tmp_path)) == DONE
    assert read_results(finished)["params_sha256"] == read_results(tmp_path)["params_sha256"]
    assert read_results(finished)["evals"] == read_results(tmp_path)["evals"]


def test_its_best_checkpoint_is_named_best(finished: Path):
    losses = {row["step"]: row["test/loss"] for row in read_metrics(finished) if "test/loss" in row}
    assert losses.keys() == {1, 2, 3, 4}
    assert load_weights(str(finished / "best")).step == min(losses, key=losses.get)


def test_a_run_cannot_be_made_shorter(finished: Path):
    with pytest.raises(UserError, match=r"is at step 4 already, and config.total asks for 3\. Set it to 4 or more"):
        train.train(small_config(3), str(finished))


def test_a_finished_run_evaluates_what_is_new_without_training(finished: Path, monkeypatch, capsys):
    monkeypatch.setattr(Program, "compile_step", None)  # it is not called
    config, before = small_config(4), read_results(finished)
    config.evals["dev"] = classification(dataset("digits", "train"), resize_size=8, batch_size=120)
    for said in (". Evaluating what is new, without training: dev.", ", and evaluated. Nothing to do."):
        assert train.train(config, str(finished)) == DONE
        assert f"it is at step 4 of 4{said}" in capsys.readouterr().out
    after = read_results(finished)
    assert after["params_sha256"] == before["params_sha256"]
    assert after["evals"].keys() == {"test", "dev"}
    assert (after["evals"]["test"], after["evals"]["dev"]["examples"]) == (before["evals"]["test"], 1438)
    assert {"dev/top1", "test/top1"} <= {name for row in read_metrics(finished) if row["step"] == 4 for name in row}

    config.evals.dev.data.split = "test"  # other data of the same name are new, a batch of another size is not
    config.evals.test.batch_size = 40
    assert train.train(config, str(finished)) == DONE
    assert "without training: dev." in capsys.readouterr().out
    assert read_results(finished)["evals"]["dev"] == before["evals"]["test"]


@pytest.mark.parametrize("lost", ["the file", "the entry in the results"])  # A run from before predictions lacks both.
def test_a_finished_run_writes_the_predictions_that_it_lacks(finished: Path, monkeypatch, capsys, lost: str):
    monkeypatch.setattr(Program, "compile_step", None)  # it is not called
    config, results = small_config(4), read_results(finished)
    if lost == "the file":
        predictions_file(finished, "test").unlink()
    else:
        write_json(finished / "results.json", {name: value for name, value in results.items() if name != "predictions"})
    for said in (". Evaluating what is new, without training: test.", ", and evaluated. Nothing to do."):
        assert train.train(config, str(finished)) == DONE
        assert f"it is at step 4 of 4{said}" in capsys.readouterr().out
    assert read_predictions(predictions_file(finished, "test")).step == 4
    assert read_results(finished)["evals"]["test"] == results["evals"]["test"]


def test_a_finished_run_that_is_to_write_no_predictions_lacks_none(finished: Path, capsys):
    config = small_config(4)
    config.evals.test.max_predictions = 0
    predictions_file(finished, "test").unlink()
    assert train.train(config, str(finished)) == DONE
    assert "Nothing to do." in capsys.readouterr().out


def test_the_records_of_a_run_say_which_parameters_it_began_with(finished: Path, tmp_path: Path):
    config = small_config(1)
    config.init_from = str(finished)
    assert train.train(config, str(tmp_path)) == DONE
    (start,) = json.loads((tmp_path / "run.json").read_text())["starts"]
    digest = params_sha256(load_weights(str(finished)).arrays)
    assert start["init_from"] == {"path": str(finished), "step": 4, "params_sha256": digest}
