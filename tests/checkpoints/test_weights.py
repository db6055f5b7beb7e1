"""Tests that weights are converted between all formats without changing a bit, and that files describe themselves."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from checkpoints.models import SMALL, random_weights
from safetensors import safe_open
from stand_ins.cloud_faults import Down

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.files import read_arrays, write_arrays
from mixer_jax.checkpoints.formats import get_format
from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.checkpoints.transfer import read_classes
from mixer_jax.checkpoints.weights import (
    convert,
    file_metadata,
    fixed_logits,
    load_weights,
    preprocessing_of,
    range_note,
    save_weights,
    tree_of,
)
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.models.identify import ModelSpec

FAMILIES = ["mixer", "vit", "resnet"]


def assert_same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name, x in left.items():
        assert x.dtype == right[name].dtype
        np.testing.assert_array_equal(x, right[name])


@pytest.mark.parametrize("model", SMALL)
def test_a_way_through_every_form_ends_with_the_same_bits(tmp_path: Path, model: str):
    weights = random_weights(SMALL[model])
    ways = {"a.npz": None, "b.safetensors": "timm", "run": None, "c.npz": "timm", "d.safetensors": "released"}
    if weights.model.family == "mixer":
        ways["e.npz"] = "internal"
    for name, format in ways.items():
        save_weights(weights, str(tmp_path / name), format)
        after = load_weights(str(tmp_path / name))
        assert_same(after.arrays, weights.arrays)
        assert after.step == 3 and after.format == ("run" if name == "run" else format or "released")
        weights = after
    # The released .npz has the same names and values as at first.
    save_weights(weights, str(tmp_path / "again.npz"))
    assert_same(read_arrays(str(tmp_path / "again.npz"))[0], read_arrays(str(tmp_path / "a.npz"))[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_convert_prints_how_far_both_sides_are_apart(tmp_path: Path, capsys, family: str):
    source, target = str(tmp_path / "a.npz"), str(tmp_path / "b.safetensors")
    save_weights(random_weights(SMALL[family]), source)
    after = convert(source, target)
    said = capsys.readouterr().out
    assert f"{source} (released) -> {target} (timm): {SMALL[family]}" in said
    assert "identical, bit for bit" in said and params_sha256(after.arrays) in said
    assert re.search(r"largest difference of logits .*: 0\n", said)
    logits = fixed_logits(after)[0]
    assert logits.shape == (2, 7) and np.ptp(logits, axis=0).min() > 0  # The two images have different logits.


def test_a_file_says_where_it_comes_from_and_how_to_use_it(tmp_path: Path):
    weights = random_weights(SMALL["mixer"])
    save_weights(weights, str(tmp_path / "a.npz"))
    save_weights(load_weights(str(tmp_path / "a.npz")), str(tmp_path / "b.safetensors"))
    with safe_open(tmp_path / "b.safetensors", framework="np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"  # PyTorch's loaders of safetensors require this.
    assert metadata["source"] == str(tmp_path / "a.npz") and metadata["source_format"] == "released" and metadata["step"] == "3"
    assert metadata["params_sha256"] == params_sha256(weights.arrays)
    assert metadata["model"] == str(SMALL["mixer"]) and json.loads(metadata["config"]) == SMALL["mixer"].options()
    assert json.loads(metadata["preprocessing"])["value_range"] == [-1, 1]
    assert json.loads(metadata["versions"]).keys() == {"jax", "flax", "numpy"}


@pytest.mark.parametrize(("source", "step", "value_range"), [
    ({"source_layout": "timm"}, "0", None), ({"source_layout": "transformers"}, "0", None),
    ({"source_layout": "timm"}, "8", [-1, 1]),  # The step says that the weights come from a run of ours.
    ({"source_layout": "released"}, "0", [-1, 1]), ({"source_format": "timm"}, "0", [-1, 1]),
])  # fmt: skip
def test_a_range_that_an_earlier_convert_stated_without_knowing_it_is_unknown(tmp_path: Path, source, step, value_range):
    metadata = source | {"step": step, "preprocessing": json.dumps({"resize": "small", "value_range": [-1, 1]})}
    write_arrays(str(tmp_path / "old.safetensors"), random_weights(SMALL["mixer"]).arrays, metadata)
    weights = load_weights(str(tmp_path / "old.safetensors"))
    for name in ("new.npz", "run", "newer.safetensors"):  # What is made from such a file does not know the range either.
        assert preprocessing_of(weights) == {"resize": "small", "value_range": value_range}
        assert bool(range_note(weights)) == (value_range is None)
        save_weights(weights, str(tmp_path / name))
        weights = load_weights(str(tmp_path / name))


def test_a_run_folder_that_an_earlier_convert_wrote_has_an_unknown_range(tmp_path: Path):
    weights = dataclasses.replace(random_weights(SMALL["mixer"]), step=0)
    old = {"source_layout": "timm", "preprocessing": json.dumps({"value_range": [-1, 1]}), "step": 0}
    checkpoints = Checkpoints(str(tmp_path / "run"), keep=1)
    checkpoints.save(0, {"params": tree_of(weights.arrays)}, old)
    checkpoints.finish()
    assert preprocessing_of(load_weights(str(tmp_path / "run")))["value_range"] is None


def test_parameters_that_are_not_those_of_the_metadata_are_refused(tmp_path: Path):
    weights = random_weights(SMALL["mixer"])
    file = str(tmp_path / "a.npz")
    save_weights(weights, file)
    arrays, metadata = read_arrays(file)
    arrays["head/bias"][2] += 1e-6
    write_arrays(str(tmp_path / "b.npz"), arrays, metadata)
    with pytest.raises(UserError, match=r"b\.npz.*not those that it was written with"):
        load_weights(str(tmp_path / "b.npz"))


@pytest.mark.parametrize(
    "metadata", [{"step": "many", "preprocessing": "{"}, {"step": "9" * 9999, "preprocessing": "[" * 99_999}, {}]
)
def test_what_a_file_says_of_itself_is_not_trusted_to_make_sense(tmp_path: Path, metadata: dict):
    file = str(tmp_path / "a.safetensors")
    write_arrays(file, random_weights(SMALL["mixer"]).arrays, metadata)
    weights = load_weights(file)
    assert weights.step == 0 and json.loads(file_metadata(weights)["preprocessing"])["central_crop"] == 12


def test_a_bucket_is_read_through_the_library_of_its_scheme(tmp_path: Path):
    weights = random_weights(SMALL["mixer"])
    save_weights(weights, str(tmp_path / "a.npz"))
    fsspec.filesystem("memory").pipe("/bucket/a.npz", (tmp_path / "a.npz").read_bytes())
    assert_same(load_weights("memory://bucket/a.npz").arrays, weights.arrays)
    with pytest.raises(UserError, match=r"pip install s3fs"):
        load_weights("s3://mixer_models/imagenet1k/Mixer-B_16.npz")


def test_cloud_storage_is_read_without_a_further_library(cloud, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # This acts as if gcsfs were not installed.
    weights = random_weights(SMALL["mixer"])
    save_weights(weights, str(tmp_path / "a.npz"))
    cloud.objects["bucket", "models/a.npz"] = (tmp_path / "a.npz").read_bytes()
    assert_same(load_weights("gs://bucket/models/a.npz").arrays, weights.arrays)
    with pytest.raises(UserError, match=r"^gs://bucket/models/b\.npz does not exist"):
        load_weights("gs://bucket/models/b.npz")
    with cloud.failing(Down()), pytest.raises(EnvironmentFault, match=r"models/a\.npz cannot be read .*Try again later"):
        load_weights("gs://bucket/models/a.npz")


@pytest.mark.parametrize(("name", "format", "message"), [
    ("a.pt", None, r"must end in \.npz or \.safetensors"), ("taken.npz", None, "exists"), ("taken", None, "exists already"),
    ("new/a.npz", None, "no folder"), ("a.npz", "timn", "choose one of released, internal, timm"), ("run", "timm", "must end in"),
])  # fmt: skip
def test_a_path_that_cannot_be_written_is_refused_and_nothing_is_lost(tmp_path: Path, name, format, message):
    (tmp_path / "taken.npz").write_bytes(b"precious")
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        save_weights(random_weights(SMALL["mixer"]), str(tmp_path / name), format)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "taken.npz").read_bytes() == b"precious"


def test_a_vit_whose_heads_a_format_cannot_tell_is_not_written_in_it(tmp_path: Path):
    unusual = ModelSpec("vit", SMALL["vit"].fields | {"num_heads": 4}, 7, 12)
    save_weights(random_weights(unusual), str(tmp_path / "a.npz"))
    for format in ("timm", "transformers"):
        with pytest.raises(UserError, match=r"how many heads.*num_heads=4.*unusual"):
            save_weights(random_weights(unusual), str(tmp_path / "a.safetensors"), format)
    assert load_weights(str(tmp_path / "a.npz")).model == unusual


def test_a_part_of_a_model_or_no_model_is_not_converted(tmp_path: Path):
    arrays = random_weights(SMALL["mixer"]).arrays
    del arrays["MixerBlock_1/LayerNorm_0/scale"]
    write_arrays(str(tmp_path / "part.npz"), arrays, {})
    with pytest.raises(UserError, match=r"(?s)looks like Mixer-S/4.*missing   MixerBlock_1/LayerNorm_0/scale"):
        convert(str(tmp_path / "part.npz"), str(tmp_path / "b.npz"))
    write_arrays(str(tmp_path / "other.npz"), {"features.0.weight": np.zeros(3)}, {})
    with pytest.raises(UserError, match=r"no format of Mixer, ViT or BiT that we know: its 1 arrays are features\.0\.weight"):
        load_weights(str(tmp_path / "other.npz"))
    assert not (tmp_path / "b.npz").exists()


def test_a_whole_run_is_converted_with_its_averaged_parameters(tiny_run: Path, tmp_path: Path):
    convert(str(tiny_run), str(tmp_path / "a.npz"))
    results = json.loads((tiny_run / "results.json").read_text())
    weights = load_weights(str(tmp_path / "a.npz"))
    assert params_sha256(weights.arrays) == results["params_sha256"] and weights.step == results["step"]
    steps = json.loads(weights.metadata["preprocessing"])  # The steps are those of the run's evaluator, not those of the paper.
    assert (steps["resize"], steps["resize_size"], steps["central_crop"]) == ("small", 8, 8)
    (tmp_path / "config.json").write_text('{"evals": {}}')  # This is the config of another run.
    convert(str(tmp_path / "a.npz"), str(tmp_path / "runs/converted"))
    convert(str(tmp_path / "runs/converted"), str(tmp_path / "b.safetensors"))  # A run's folder keeps the steps.
    assert json.loads(load_weights(str(tmp_path / "b.safetensors")).metadata["preprocessing"]) == steps


def test_the_arrays_of_a_released_file_are_those_of_the_model():
    """Our parameter tree is that of the released files, so names and axes need no conversion."""
    for family in ("mixer", "vit"):
        arrays = random_weights(SMALL[family]).arrays
        assert_same(get_format("released", family).to_theirs(arrays), arrays)


def test_a_config_may_name_weights_in_the_home_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = random_weights(SMALL["mixer"])
    save_weights(weights, str(tmp_path / "w.npz"))
    save_weights(weights, str(tmp_path / "lr0.1"))
    assert_same(load_weights("~/w.npz").arrays, weights.arrays)
    assert_same(load_weights("~/lr0.1").arrays, weights.arrays)
    (tmp_path / "classes").write_text("3\n1\n")
    assert read_classes("~/classes") == [3, 1]
