"""Run folders with the text files that records.py describes, one of them with a checkpoint. Nothing is trained."""

import json

import jax
import pytest

from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.config import classification, dataset, default_config
from mixer_jax.models.registry import make_model
from mixer_jax.training.state import init_params


def _write_run(folder, *, metrics=None, **changes):
    """Write a finished run of 40 steps on the digits, with `changes` of its config; double underscores stand for dots."""
    config = default_config()
    config.total.steps, config.batch_size, config.image_size, config.num_classes = 40, 16, 8, 10
    config.model.update({"variant": "S/2", "num_blocks": 1, "hidden_dim": 8, "tokens_mlp_dim": 6, "channels_mlp_dim": 8})
    config.data = dataset("digits", "train")
    config.evals = {"test": classification(dataset("digits", "test"), resize_size=8)}
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    start = {
        "time": "2026-01-01 00:00:00 UTC", "command": "python train.py", "git_commit": "abc", "python": "3.11",
        "versions": {"jax": "0"}, "host": "here", "first_step": 0, "total_steps": 40, "parameters": 12345,
        "platform": "cpu", "device_kind": "cpu", "devices": 1,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    if metrics is None:
        train = [{"step": s, "loss": 4 / s, "learning_rate": 1e-3, "images_per_sec": 100.0 + s} for s in (10, 20, 30, 40)]
        metrics = [
            *train,
            {"step": 20, "test/top1": 0.5, "test/loss": 1.5},
            {"step": 40, "test/top1": 0.6, "test/loss": 1.2},
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    results = {"step": 40, "params_sha256": "0" * 64, "evals": {"test": {"top1": 0.6, "loss": 1.2}}}
    results["seconds"] = {"compile": 1.0, "data": 2.0, "device": 4.0, "total": 10.0}
    (folder / "results.json").write_text(json.dumps(results))
    return config


@pytest.fixture(scope="session")
def write_run():
    return _write_run


@pytest.fixture
def run_folder(tmp_path):
    """Return the folder of a finished run without a checkpoint."""
    _write_run(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """Return the folder of a finished run with a checkpoint."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    config = _write_run(folder)
    model = make_model(config.model, 10)
    params = jax.jit(lambda: init_params(model, config.image_size, 0))()
    checkpoints = Checkpoints(str(folder), keep=2)
    checkpoints.save(40, {"params": params}, {"step": 40, "data": {}})
    checkpoints.finish()
    return folder
