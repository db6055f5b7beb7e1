"""The benchmark of resolutions compares every method, and its accuracies come from the programs that it starts."""

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints.models import SMALL, random_weights

from benchmarks import surgery
from benchmarks.surgery import benchmark_surgery, tiles_error
from mixer_jax import app
from mixer_jax.checkpoints.weights import load_weights, save_weights


@pytest.fixture
def stages(monkeypatch) -> list[tuple]:
    """Return the list of commands that the benchmark starts.

    A fake accuracy is the image size of the weights / 1000, plus 1 after training.
    """
    started = []

    def stage(program, config, workdir, *flags, output):
        started.append((program, *flags))
        file = next(flag.split("=")[1] for flag in flags if flag.startswith(("--checkpoint=", "--config.init_from=")))
        workdir.mkdir()
        top1 = load_weights(file).model.image_size / 1000 + (program == "train.py")
        (workdir / "results.json").write_text(json.dumps({"evals": {"test": {"top1": top1}}}))

    monkeypatch.setattr(app, "stage", stage)
    monkeypatch.setattr(
        surgery, "tiles_error", lambda weights, k: weights.model.image_size / k
    )  # The error of a B/16 is slow to compute.
    return started


def test_every_method_is_evaluated_and_fine_tuned_at_every_side(tmp_path: Path, stages):
    save_weights(random_weights(SMALL["mixer"]), str(tmp_path / "run"))  # The model has 3 x 3 patches of 4 pixels.
    figures = benchmark_surgery(tmp_path / "run", tmp_path / "out", 7)
    assert figures["top1"] == {
        f"{side} px, {method}": {"before": side / 1000, "after": side / 1000 + 1}
        for side, methods in {
            4: ("interpolated", "random"), 12: ("as it was",), 20: ("interpolated", "random"),
            24: ("tiles", "interpolated", "random"),
        }.items()
        for method in methods
    }  # fmt: skip
    assert [program for program, *_ in stages] == ["evaluate.py", "train.py"] * 8
    tiles = next(flags for _, *flags in stages if "--config.model.tokens_mlp_dim=48" in flags)
    assert "--config.image_size=24" in tiles and "--config.evals.test.resize_size=24" in tiles
    assert all("--config.total.steps=7" in flags for program, *flags in stages if program == "train.py")
    assert list(figures["tiles_relative_error"].values()) == [12 / 2, 224 / 2]


def test_token_mixing_at_random_leaves_the_rest_as_it_was(tmp_path: Path, stages):
    weights = random_weights(SMALL["mixer"])
    save_weights(weights, str(tmp_path / "run"))
    benchmark_surgery(tmp_path / "run", tmp_path / "out", 7)
    drawn = load_weights(str(tmp_path / "out" / "random-24" / "start.npz")).arrays
    for name, x in weights.arrays.items():
        if "token_mixing" not in name:
            np.testing.assert_array_equal(drawn[name], x)
    kernel = drawn["MixerBlock_0/token_mixing/Dense_0/kernel"]
    assert kernel.shape == (36, 12) and kernel.std() == pytest.approx(36**-0.5, rel=0.1)
    assert not drawn["MixerBlock_1/token_mixing/Dense_1/bias"].any()


def test_the_error_of_tiles_is_that_of_the_law():
    assert tiles_error(random_weights(SMALL["mixer"]), 3) < 1e-6
