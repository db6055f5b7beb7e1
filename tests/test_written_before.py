"""What an earlier commit wrote is read and resumed: tests/written_at_094b98b was made at 094b98b and is never made anew.

A tiny Mixer on 64 digits in shards, twelve steps long, was stopped at step 8 (run/); weights.npz and weights.safetensors are
converted from there. params_at_step_12.npz holds the averaged parameters of the same run when nothing stopped it. Options have
the names that they had then.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import train
from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.weights import load_weights
from mixer_jax.config import dataset, default_config, flatten
from mixer_jax.data.sources.manifest import Manifest, split_folders
from mixer_jax.data.sources.registry import open_source
from mixer_jax.endings import DONE
from mixer_jax.options import OPTIONS, RENAMED
from mixer_jax.recorded_config import recorded_config, usable_config
from mixer_jax.records import read_metrics, read_results
from mixer_jax.report.runs import config_differences, last_step, points, read_run
from mixer_jax.report.samples import training_images
from mixer_jax.validation import validate

WRITTEN = Path(__file__).parent / "written_at_094b98b"
DIGEST_AT_STEP_8 = "8e18d0745f027f476083bbeb1bc41de0bdc020cd7d3d11afe780ac65e904576b"
LOSS_AT_STEP_12, TOP1_AT_STEP_12 = 2.4008123874664307, 0.125


@pytest.fixture
def written(tmp_path, monkeypatch) -> Path:
    """A copy of all that was written, as the current directory."""
    shutil.copytree(WRITTEN, tmp_path / "written")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "written")
    return tmp_path / "written"


def read_config(file: Path) -> ConfigDict:
    """A config.json as a config of today."""
    config, recorded = default_config(), json.loads(file.read_text())
    with config.unlocked():
        config.update(ConfigDict(recorded))
        config.evals = usable_config(recorded).evals
    return config


def test_a_run_is_resumed_and_ends_as_if_nothing_had_stopped_it(written):
    before = read_metrics(written / "run")
    config = read_config(written / "run/config.json")
    validate(config)
    assert train.train(config, "run") == DONE

    results = read_results(written / "run")
    assert results["step"] == 12
    assert results["evals"]["test"]["loss"] == pytest.approx(LOSS_AT_STEP_12, rel=1e-5)
    assert results["evals"]["test"]["top1"] == TOP1_AT_STEP_12
    params = load_weights("run").arrays
    with np.load(written / "params_at_step_12.npz") as expected:
        assert params.keys() == set(expected)
        for name, x in params.items():
            np.testing.assert_allclose(x, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)

    metrics = read_metrics(written / "run")
    assert metrics[: len(before)] == before
    assert [row["step"] for row in metrics] == [2, 4, 6, 8, 10, 12, 12]
    assert [row["substituted"] for row in metrics[:-1]] == [0] * 6


def test_a_runs_own_config_is_one_of_today(written):
    config = usable_config(json.loads((written / "run/config.json").read_text()))
    validate(config)
    assert flatten(config) == flatten(read_config(written / "run/config.json"))


def test_a_runs_config_has_the_names_of_its_day(written):
    text = (written / "run/config.json").read_text()
    assert all(f'"{old}"' in text for old in RENAMED)
    then, now = (flatten(recorded_config(json.loads(text))), flatten(read_config(written / "run/config.json")))
    since = {row.name: row.default for row in OPTIONS if row.before is not None}
    since |= {row.name: row.default for row in OPTIONS if row.name.startswith("watchdog.")}
    since |= {"evals.test.max_predictions": 100_000, "evals.test.data.local_copy": ""}
    then, now = ({name: list(x) if isinstance(x, tuple) else x for name, x in flat.items()} for flat in (then | since, now))
    assert then == now


@pytest.mark.parametrize("file", ["run", "run/checkpoints/8", "weights.npz", "weights.safetensors"])
def test_its_parameters_are_read_in_every_form(written, file):
    weights = load_weights(file)
    assert (weights.step, params_sha256(weights.arrays)) == (8, DIGEST_AT_STEP_8)
    assert str(weights.model).startswith("Mixer-S/2")


def test_its_shards_are_whole_and_hold_what_they_held(written):
    for split in split_folders(written / "data"):
        Manifest(split).check("whole")
    train_source, test_source = (open_source(dataset("records:data", split)) for split in ("train", "test"))
    assert (len(train_source), len(test_source)) == (64, 32)
    assert train_source.class_names == tuple(f"digit_{i}" for i in range(10))
    record = test_source[0]
    digest = hashlib.sha256(record.image).hexdigest()
    assert (record.labels, digest[:16]) == ((9,), "b2e4584a6f8bc14b")


def test_its_records_are_reported(written):
    run = read_run(written / "run")
    assert last_step(run) == 8
    assert [step for step, _ in points(run, "loss")] == [2, 4, 6, 8]
    assert run.starts[-1]["git_commit"].startswith("094b98b")
    assert config_differences(run, run) == []
    assert [(picture.width, picture.height) for picture in training_images(run, 2)] == [(64, 64)] * 2
