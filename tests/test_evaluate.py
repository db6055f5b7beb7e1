"""evaluate.py gives the figures that training gave, for the same parameters."""

import json
from pathlib import Path

import pytest

import evaluate
from mixer_jax.checkpoints.weights import load_weights, save_weights
from mixer_jax.endings import DONE
from mixer_jax.errors import UserError


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
    with pytest.raises(UserError, match=r"take the weights as they are: --config.num_classes=10\."):
        evaluate.evaluate(tiny_config, str(tiny_run), str(tmp_path))


def test_a_file_of_weights_has_the_results_of_its_run(tiny_run: Path, tmp_path: Path, tiny_config):
    file = str(tmp_path / "w.safetensors")
    save_weights(load_weights(str(tiny_run)), file)
    assert evaluate.evaluate(tiny_config, file, str(tmp_path / "out")) == DONE
    assert {key: results(tmp_path / "out")[key] for key in ("step", "params_sha256", "evals")} == {
        key: results(tiny_run)[key] for key in ("step", "params_sha256", "evals")
    }


def test_another_resolution_is_evaluated_after_surgery_which_is_said_in_one_line(
    tiny_run: Path, tmp_path: Path, tiny_config, capsys
):
    del tiny_config.evals["fewshot"]
    tiny_config.evals.test.resize_size = 16
    for image_size, said in ((16, "2 x 2 tiles, D_S 8 -> 32"), (12, "4 x 4 -> 6 x 6 patches: token mixing interpolated")):
        tiny_config.image_size, tiny_config.model.tile_size = image_size, 8
        assert evaluate.evaluate(tiny_config, str(tiny_run), str(tmp_path)) == DONE
        assert [said in line for line in capsys.readouterr().out.splitlines() if "patches" in line] == [True]
        assert results(tmp_path)["evals"]["test"]["examples"] == 359
