"""Tests of what a transfer restores, replaces, drops and refuses."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints.models import SMALL, random_weights

from mixer_jax.checkpoints.files import read_arrays, write_arrays
from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.checkpoints.transfer import fit, init_from, read_classes
from mixer_jax.checkpoints.weights import expected_signatures, load_weights, save_weights, tree_of
from mixer_jax.errors import UserError


def params(value: float, num_classes: int | None) -> dict:
    tree = {"stem": {"kernel": jnp.full((4, 3), value)}}
    return tree if num_classes is None else tree | {"head": {"kernel": jnp.full((3, num_classes), value)}}


def saved(workdir: Path, num_classes: int | None) -> str:
    checkpoints = Checkpoints(str(workdir), keep=2)
    checkpoints.save(1, {"params": params(1.0, num_classes)}, {"step": 1})
    checkpoints.finish()
    return str(workdir)


@pytest.mark.parametrize(
    "there, here, replaced, dropped",
    [(5, 5, ["head/kernel"], []), (5, 7, ["head/kernel"], []), (5, None, [], ["head/kernel"]), (None, 7, [], [])],
)
def test_a_new_head_is_kept_and_the_rest_restored(tmp_path: Path, there, here, replaced, dropped):
    merged, listing, _ = init_from(saved(tmp_path, there), params(2.0, here), head="new")
    assert listing == {"restored": ["stem/kernel"], "replaced": replaced, "dropped": dropped}
    np.testing.assert_array_equal(merged["stem"]["kernel"], 1.0)
    if here:
        np.testing.assert_array_equal(merged["head"]["kernel"], np.full((3, here), 2.0))


def test_a_head_to_be_restored_must_fit(tmp_path: Path):
    path = saved(tmp_path, 5)
    merged, listing, _ = init_from(path, params(2.0, 5), head="restore")
    assert listing["restored"] == ["head/kernel", "stem/kernel"]
    np.testing.assert_array_equal(merged["head"]["kernel"], 1.0)
    with pytest.raises(UserError, match="differs   head/kernel"):
        init_from(path, params(2.0, 7), head="restore")


def test_a_head_can_be_a_subset_of_another(tmp_path: Path):
    weights = random_weights(SMALL["mixer"])
    save_weights(weights, str(tmp_path / "w.npz"))
    (tmp_path / "classes.txt").write_text("6\n0\n2\n")
    here = tree_of(
        {name: jnp.zeros((*x.shape[:-1], 3) if name.startswith("head/") else x.shape) for name, x in weights.arrays.items()}
    )
    merged, listing, _ = init_from(str(tmp_path / "w.npz"), here, "subset", str(tmp_path / "classes.txt"))
    np.testing.assert_array_equal(merged["head"]["kernel"], weights.arrays["head/kernel"][:, [6, 0, 2]])
    np.testing.assert_array_equal(merged["head"]["bias"], weights.arrays["head/bias"][[6, 0, 2]])
    assert set(listing["restored"]) == set(weights.arrays)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "no such file"), ("1\nn02\n", "found n02"), ("", "found none"), ("-1", "found -1")]
)
def test_a_file_of_classes_has_numbers_and_nothing_else(tmp_path: Path, text, message):
    if text is not None:
        (tmp_path / "classes").write_text(text)
    with pytest.raises(UserError, match=message):
        read_classes(str(tmp_path / "classes"))


def test_a_layer_before_the_head_goes_with_it(tmp_path: Path):
    weights = random_weights(SMALL["vit, mean, pre-logits"])
    save_weights(weights, str(tmp_path / "w.npz"))
    here = {name: jnp.zeros(x.shape) for name, x in weights.arrays.items() if not name.startswith(("pre_logits/", "head/"))}
    _, listing, _ = init_from(str(tmp_path / "w.npz"), tree_of(here), "new")
    assert listing["dropped"] == ["head/bias", "head/kernel", "pre_logits/bias", "pre_logits/kernel"]


def rename(arrays: dict, old: str, new: str) -> dict:
    return {name.replace(old, new): x for name, x in arrays.items()}


def without(arrays: dict, start: str) -> dict:
    return {name: x for name, x in arrays.items() if not name.startswith(start)}


def reshaped(arrays: dict, name: str, change) -> dict:
    return arrays | {name: change(arrays[name])}


def of_another(**fields):
    """Return parameters of the small Mixer with other values of some fields."""

    def make(_: dict) -> dict:
        base = SMALL["mixer"]
        sizes = {name: fields.pop(name) for name in ("num_classes", "image_size") if name in fields}
        model = type(base)(base.family, base.fields | fields, **({"num_classes": 7, "image_size": 12} | sizes))
        return random_weights(model).arrays

    return make


T0, C0, B1 = (
    f"MixerBlock_0/{name}" for name in ("token_mixing/Dense_0/kernel", "channel_mixing/Dense_0/kernel", "LayerNorm_1/bias")
)
MUTANTS = {  # {case: (a function that changes the parameters, what the error says)}
    "a block less": (lambda a: without(a, "MixerBlock_1/"), r"--config\.model\.num_blocks=1.*missing   MixerBlock_1/"),
    "a block more": (of_another(num_blocks=3), r"num_blocks=3.*extra     MixerBlock_2/"),
    "width": (of_another(hidden_dim=32), r"hidden_dim=32.*differs   stem/kernel"),
    "channel MLP": (of_another(channels_mlp_dim=48), r"channels_mlp_dim=48.*differs   MixerBlock_0/channel_mixing"),
    "token MLP": (of_another(tokens_mlp_dim=10), r"tokens_mlp_dim=10.*differs   MixerBlock_0/token_mixing"),
    "patch": (of_another(variant="S/6"), r"--config\.model\.variant=S/6.*differs   stem/kernel"),
    "classes": (of_another(num_classes=9), r"with 9 classes.*--config\.num_classes=9.*differs   head/bias"),
    "no head": (of_another(num_classes=None), r"missing   head/bias"),
    "a bias missing": (lambda a: without(a, B1), r"missing   MixerBlock_0/LayerNorm_1/bias"),
    "renamed": (lambda a: rename(a, "LayerNorm_1", "LayerNorm_7"), rf"missing   {B1}.*extra     MixerBlock_0/LayerNorm_7/bias"),
    "transposed": (lambda a: reshaped(a, C0, np.transpose), rf"differs   {C0}.*\(40, 24\).*\(24, 40\)"),
    "complex": (lambda a: {name: x.astype(np.complex64) for name, x in a.items()}, r"differs   .*complex64.*float32"),
    "whole numbers": (lambda a: reshaped(a, "stem/bias", np.int32), r"differs   stem/bias.*int32.*float32"),
    "tokens in no square": (lambda a: reshaped(a, T0, lambda x: x[:7]), rf"differs   {T0}.*\(7, 12\)"),
    "another family": (lambda _: random_weights(SMALL["vit"]).arrays, r"It holds ViT-S/4.*asks for Mixer-S/4.*extra     cls"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_parameters_of_another_model_are_refused_with_what_differs_and_what_to_set(tmp_path: Path, name: str):
    mutate, message = MUTANTS[name]
    file = str(tmp_path / "w.npz")
    write_arrays(file, mutate(random_weights(SMALL["mixer"]).arrays), {})
    shapes = tree_of(
        {path: jax.ShapeDtypeStruct(shape, dtype) for path, (dtype, shape) in expected_signatures(SMALL["mixer"]).items()}
    )
    with pytest.raises(UserError, match="(?s)" + message) as refusal:
        fit(load_weights(file), shapes)
    assert file in str(refusal.value)


def test_the_right_parameters_fit(tmp_path: Path, capsys):
    write_arrays(str(tmp_path / "w.npz"), random_weights(SMALL["mixer"]).arrays, {})
    shapes = tree_of(
        {path: jax.ShapeDtypeStruct(shape, dtype) for path, (dtype, shape) in expected_signatures(SMALL["mixer"]).items()}
    )
    arrays = fit(load_weights(str(tmp_path / "w.npz")), shapes)
    np.testing.assert_array_equal(arrays["head/kernel"], random_weights(SMALL["mixer"]).arrays["head/kernel"])
    assert "range of pixels" not in capsys.readouterr().out
    save_weights(load_weights(str(tmp_path / "w.npz")), str(tmp_path / "theirs.safetensors"))
    arrays, _ = read_arrays(str(tmp_path / "theirs.safetensors"))
    write_arrays(str(tmp_path / "t.safetensors"), arrays, {})  # timm's file has no metadata.
    fit(load_weights(str(tmp_path / "t.safetensors")), shapes)
    assert "the range of pixels that it expects is not known" in capsys.readouterr().out
