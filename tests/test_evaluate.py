"""evaluate.py gives the figures that training gave, for the same parameters."""

import json
from pathlib import Path

import pytest

import evaluate
from mixer_jax.app import DONE
from mixer_jax.config import UserError


def results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


def test_a_run_and_its_last_step_have_the_results_of_training(tiny_run: Path, tmp_path: Path, tiny_config):
    for checkpoint in (tiny_run, tiny_run / "checkpoints/4"):
        assert evaluate.evaluate(tiny_config, str(checkpoint), str(tmp_path)) == DONE
        assert {key: results(tmp_path)[key] for key in ("step", "params_sha256", "evals")} == {
            key: results(tiny_run)[key] for key in ("step", "params_sha256", "evals")
        }
        assert results(tmp_path)["checkpoint"] == str(checkpoint)


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(tiny_run: Path, tmp_path: Path, tiny_config):
    tiny_config.model.num_blocks = 3
    with pytest.raises(UserError, match="missing   MixerBlock_2/LayerNorm_0/bias"):
        evaluate.evaluate(tiny_config, str(tiny_run), str(tmp_path))


def test_a_config_without_evaluators_is_refused(tiny_run: Path, tmp_path: Path, tiny_config):
    tiny_config.evals = {}
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate.evaluate(tiny_config, str(tiny_run), str(tmp_path))


def test_data_with_other_classes_than_the_model_are_refused(tiny_run: Path, tmp_path: Path, tiny_config):
    tiny_config.num_classes = 11
    with pytest.raises(UserError, match=r"evals.test.data has 10 classes and the model 11"):
        evaluate.evaluate(tiny_config, str(tiny_run), str(tmp_path))
