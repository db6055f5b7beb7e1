"""Weights of timm in our models and of ours in timm: `make test-interop`, which installs PyTorch and timm.

The differences are compared with the bounds that docs/weights.md states. golden_logits.json, with which `make test` compares our
models without timm, is checked here too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from conftest import ROOT
from interop.drawn import BOUNDS, MODELS, images, relative_error
from interop.timm_models import FORMS, logits, make, timm
from safetensors.torch import load_file, save_file

from mixer_jax.checkpoints.weights import convert, load_weights, tree_of
from mixer_jax.models.registry import make_model

GOLDEN = Path(__file__).parents[1] / "checkpoints" / "golden_logits.json"


def our_logits(place: str, x: np.ndarray) -> np.ndarray:
    weights = load_weights(place)
    model = make_model(weights.model.config(), weights.model.num_classes)
    return np.asarray(jax.jit(model.apply)({"params": tree_of(weights.arrays)}, x)[0])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_timm_has_the_same_logits_here_and_comes_back_with_the_same_bits(name, tmp_path, capsys):
    model = make(name, "tanh")
    there = logits(model)
    file = str(tmp_path / f"{name}.safetensors")
    save_file(model.state_dict(), file)

    here = our_logits(file, images())
    bounds = dict(zip(FORMS, BOUNDS[f"timm {name}"], strict=True))
    errors = {form: relative_error(here, logits(make(name, form))) for form, bound in bounds.items() if bound}
    with capsys.disabled():
        print(f"\n{name}: logits differ from timm's by {errors}")
    assert all(error < bounds[form] for form, error in errors.items())
    golden = json.loads(GOLDEN.read_text())[name]
    # Not exactly equal: another CPU sums in another order.
    assert relative_error(np.array(golden), there[:, : len(golden[0])]) < 1e-5, "write it again: python tests/interop/golden.py"

    convert(file, str(tmp_path / "ours.npz"))
    convert(str(tmp_path / "ours.npz"), str(tmp_path / "back.safetensors"))
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[key], x) for key, x in model.state_dict().items())
    model.load_state_dict(back)
    np.testing.assert_array_equal(logits(model), there)


def call(*command: str) -> str:
    """What a program of ours says, on one device."""
    environment = os.environ | {"XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


FLAGS = [
    "--config.data.source=digits", "--config.evals.test.data.source=digits", "--config.num_classes=10", "--config.batch_size=2",
    "--config.total.steps=2", "--config.schedule.warmup.steps=1", "--config.model.dtype=float32", "--config.loader.workers=2",
    "--config.data.examples_per_class=2", "--config.evals.test.data.examples_per_class=1",
]  # fmt: skip


def test_a_mixer_of_timm_is_fine_tuned_at_224_and_448_evaluated_and_goes_back(tmp_path, capsys):
    file = str(tmp_path / "mixer_b16_224.safetensors")
    save_file(make("mixer_b16_224", "tanh").state_dict(), file)
    convert(file, str(tmp_path / "mixer.npz"))
    for side, parameters in ((224, 59_119_162), (448, 86_235_082)):
        config = ["--config=configs/finetune.py:cifar10", f"--config.image_size={side}", *FLAGS]
        run = str(tmp_path / f"run-{side}")
        start = f"--config.init_from={tmp_path}/mixer.npz"
        said = call("train.py", *config, f"--workdir={run}", start)
        assert ("token mixing of 2 x 2 tiles, D_S 384 -> 1536" in said) == (side == 448)
        out = str(tmp_path / f"out-{side}")
        call("evaluate.py", *config, f"--checkpoint={run}", f"--workdir={out}")
        trained, evaluated = (json.loads(Path(place, "results.json").read_text()) for place in (run, out))
        assert evaluated["evals"] == trained["evals"] and evaluated["params_sha256"] == trained["params_sha256"]

        assert sum(x.size for x in load_weights(run).arrays.values()) == parameters
        convert(run, str(tmp_path / f"back-{side}.safetensors"))
        options = {"num_classes": 10, "img_size": side} | ({"mlp_ratio": (2.0, 4.0)} if side == 448 else {})
        back = timm.create_model("mixer_b16_224", act_layer=FORMS["tanh"], **options).eval()
        back.load_state_dict(load_file(tmp_path / f"back-{side}.safetensors"))
        x = np.random.default_rng(1).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
        with torch.no_grad():
            there = back(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
        error = relative_error(our_logits(run, x), there)
        with capsys.disabled():
            print(f"\nmixer_b16_224 fine-tuned at {side} pixels and back in timm: logits differ by {error:.1e}")
        assert error < 1e-4
