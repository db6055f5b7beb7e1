"""Tests that wrappers of other programs are removed with a note, and that the user chooses between several sets."""

import dataclasses
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoints.models import SMALL, random_weights

from mixer_jax.checkpoints.files import read_arrays, write_arrays
from mixer_jax.checkpoints.formats import Arrays
from mixer_jax.checkpoints.weights import load_weights, save_weights
from mixer_jax.checkpoints.wrapped import MAX_SETS, unwrap
from mixer_jax.errors import UserError

FAMILIES = ("mixer", "vit", "resnet")


def bare(tmp_path: Path, family: str, suffix: str) -> Arrays:
    """Return the arrays of a file in its authors' format, without any prefix."""
    file = tmp_path / f"bare{suffix}"
    if not file.exists():
        save_weights(random_weights(SMALL[family]), str(file))
    return read_arrays(str(file))[0]


def load(tmp_path: Path, arrays: Arrays, choice: str = "", suffix: str = ".safetensors") -> Arrays:
    file = tmp_path / f"wrapped{suffix}"
    file.unlink(missing_ok=True)
    write_arrays(str(file), arrays, {})
    return load_weights(f"{file}{choice}").arrays


def assert_same(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def under(prefix: str, arrays: Arrays, change: float = 0) -> Arrays:
    return {prefix + name: x + np.float32(change) for name, x in arrays.items()}


def compiled_blocks(arrays: Arrays) -> Arrays:
    """Return the arrays under the names that torch.compile of each single block gives them."""
    return {name.replace("0.", "0._orig_mod.", 1): x for name, x in arrays.items()}


TORCH = {  # {case: (a function that changes a PyTorch model's arrays, what is printed)}
    "compiled": (lambda x: under("_orig_mod.", x), "took _orig_mod. out of"),
    "blocks compiled": (compiled_blocks, "took _orig_mod. out of"),
    "parallel": (lambda x: under("module.", x), "arrays under 'module.'"),
    "Lightning": (lambda x: under("model.", x), "arrays under 'model.'"),
    "Lightning, compiled": (lambda x: under("model._orig_mod.", x), "arrays under 'model.', took _orig_mod."),
    "all of them": (lambda x: under("module._orig_mod.model.", x), "arrays under 'module.model.', took"),
    "compiled, then parallel": (lambda x: under("_orig_mod.module.", x), "arrays under 'module.', took"),
    "nothing": (dict, ""),
}
BIG_VISION = {
    "its checkpoint": (lambda x: under("params/", x) | under("opt/0/mu/", x) | under("opt/0/nu/", x), "under 'params/', left"),
    "with a clock": (lambda x: under("params/", x) | {"chrono/accum_train_time": np.zeros(())}, "1 others (under chrono)"),
    "of older code": (lambda x: under("opt/target/", x) | under("opt/state/param_states/", x), "under 'opt/target/', left"),
    "of flax.optim": (lambda x: under("optimizer/target/", x) | {"optimizer/state/step": np.zeros((), np.int32)}, "left 1"),
    "parameters alone": (lambda x: under("params/", x), "arrays under 'params/'"),
    "an optimizer beside": (lambda x: x | under("opt/0/mu/", x), "left"),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("suffix", "table"), [(".safetensors", TORCH), (".npz", BIG_VISION)], ids=["torch", "big_vision"])
def test_wrappers_are_taken_off_and_an_optimizer_is_left_which_is_said(tmp_path, family, suffix, table, capsys):
    arrays = bare(tmp_path, family, suffix)
    expected = random_weights(SMALL[family]).arrays
    cases = dict(list(table.items())[: 1 if family == "resnet" else None])  # A ResNet has many arrays, which take time.
    for case, (wrap, said) in cases.items():
        assert_same(load(tmp_path, wrap(arrays), suffix=suffix), expected)
        captured = capsys.readouterr()
        assert captured.out == "" and said in captured.err and captured.err.count("\n") == bool(said), case


CHOICES = {  # {case: (the arrays of a file, {a prefix to choose: how far its values are from the original values})}
    "an average beside": (lambda x: under("model.", x) | under("ema.", x, 1), {"model": 0, "ema": 1}),
    "a teacher and a student": (lambda x: under("teacher.", x, 2) | under("student.", x, 1), {"teacher": 2, "student": 1}),
    "a state alone": (lambda x: under("state_dict.", x, 1), {"state_dict": 1}),
    "two states": (lambda x: under("state_dict.", x) | under("state_dict_ema.", x, 1), {"state_dict": 0, "state_dict_ema": 1}),
    "bare, and an average": (lambda x: x | under("ema.module.", x, 1), {"": 0, "ema.module": 1}),
    "an average alone": (lambda x: under("model_ema.module.", x, 1), {"model_ema.module": 1}),
}


@pytest.mark.parametrize("case", CHOICES)
def test_a_choice_is_refused_with_the_names_and_made_by_name(tmp_path: Path, case: str):
    wrap, choices = CHOICES[case]
    arrays, expected = wrap(bare(tmp_path, "mixer", ".safetensors")), random_weights(SMALL["mixer"]).arrays
    with pytest.raises(UserError) as error:
        load(tmp_path, arrays)
    assert all(f"wrapped.safetensors#{prefix}" in str(error.value) for prefix in choices) and "\n" not in str(error.value)
    for prefix, change in choices.items():
        assert_same(load(tmp_path, arrays, f"#{prefix}"), under("", expected, change))
    with pytest.raises(UserError, match="no parameters under 'averaged'"):
        load(tmp_path, arrays, "#averaged")


def test_arrays_beside_a_wrapped_model_are_refused_until_that_is_chosen(tmp_path: Path, capsys):
    """Otherwise, for example, a head that a program stores outside of the body would be lost without a message."""
    arrays = bare(tmp_path, "mixer", ".safetensors")
    beside = under("model.", arrays) | {"criterion.weight": np.ones(3, np.float32)}
    with pytest.raises(UserError, match=r"beside them 1 other arrays, such as criterion\.weight.*#model\."):
        load(tmp_path, beside)
    assert_same(load(tmp_path, beside, "#model"), random_weights(SMALL["mixer"]).arrays)
    assert "left 1 others (under criterion)" in capsys.readouterr().err


def test_blocks_of_another_model_are_no_choice(tmp_path: Path):
    other = {f"layers.{i}.blocks.0.attn.{part}.weight": np.zeros(2, np.float32) for i in range(4) for part in ("qkv", "table")}
    with pytest.raises(UserError, match="in no format of Mixer, ViT or BiT that we know"):
        load(tmp_path, other)


def test_names_that_all_look_like_sets_cost_no_more_than_a_pass_over_them():
    names = {f"{i}.blocks.0.attn.qkv.weight": np.zeros(1, np.float32) for i in range(20 * MAX_SETS)}
    assert unwrap(names).note == ""
    with pytest.raises(UserError, match=r"differ in _orig_mod\. alone"):
        unwrap({"a.weight": np.zeros(1), "_orig_mod.a.weight": np.zeros(1)})


def test_a_file_whose_name_has_the_sign_of_a_choice_is_a_file(tmp_path: Path):
    save_weights(random_weights(SMALL["mixer"]), str(tmp_path / "a#b.npz"))
    assert_same(load_weights(str(tmp_path / "a#b.npz")).arrays, random_weights(SMALL["mixer"]).arrays)


@pytest.mark.parametrize("family", ["mixer", "vit"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floating_points_become_float32_which_is_said(tmp_path: Path, family: str, dtype, capsys):
    arrays = {name: x.astype(dtype) for name, x in bare(tmp_path, family, ".safetensors").items()}
    name = np.dtype(dtype).name
    loaded = load(tmp_path, arrays)
    expected = {path: x.astype(dtype).astype(np.float32) for path, x in random_weights(SMALL[family]).arrays.items()}
    assert_same(loaded, expected)
    assert {x.dtype.name for x in loaded.values()} == {"float32"}
    assert f"converted {len(loaded)} arrays of {name} to float32." in capsys.readouterr().err


def test_values_beyond_float32_are_counted_and_those_that_are_not_finite_are_not(tmp_path: Path):
    arrays = bare(tmp_path, "mixer", ".safetensors") | {"norm.bias": np.linspace(0, 3e38, 24)}
    assert load(tmp_path, arrays)["pre_head_layer_norm/bias"][-1] == np.float32(3e38)
    arrays["norm.bias"][[3, 5]] = 1e39, -1e300
    with pytest.raises(UserError, match="pre_head_layer_norm/bias holds 2 values of float64 that are beyond float32"):
        load(tmp_path, arrays)
    arrays["norm.bias"][[3, 5]] = np.nan, np.inf
    with pytest.raises(UserError, match="pre_head_layer_norm/bias holds 2 of 24 values that are not finite"):
        load(tmp_path, arrays)


def test_what_was_taken_off_does_not_come_back(tmp_path: Path):
    """A wrapped file is converted to a bare one, in which the range of pixels is still not known."""
    load(tmp_path, under("module.", bare(tmp_path, "mixer", ".safetensors")))
    weights = load_weights(str(tmp_path / "wrapped.safetensors"))
    save_weights(dataclasses.replace(weights), str(tmp_path / "bare.npz"))
    arrays, metadata = read_arrays(str(tmp_path / "bare.npz"))
    assert_same(arrays, weights.arrays)
    assert '"value_range": null' in metadata["preprocessing"]
