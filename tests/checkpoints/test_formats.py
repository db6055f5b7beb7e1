"""Tests that every format of every family converts there and back, and has the names and axes of the other project."""

import numpy as np
import pytest
from checkpoints.models import SMALL, random_weights

from mixer_jax.checkpoints.formats import FORMATS, find_format, get_format
from mixer_jax.errors import UserError

CASES = [(model, format) for model in SMALL for format in FORMATS if format.family == SMALL[model].family]


@pytest.mark.parametrize(("model", "format"), CASES, ids=lambda case: getattr(case, "name", case))
def test_there_and_back_is_the_identity_and_the_format_is_known_again(model, format):
    arrays = random_weights(SMALL[model]).arrays
    theirs = format.to_theirs(arrays)
    assert find_format(theirs) is format
    back = format.to_ours(theirs)
    assert back.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(back[name], x)
    again = format.to_theirs(back)
    assert all(again[name].tobytes() == x.tobytes() for name, x in theirs.items())


def test_a_mixer_of_timm():
    arrays = random_weights(SMALL["mixer"]).arrays
    theirs = get_format("timm", "mixer").to_theirs(arrays)
    shapes = {name: x.shape for name, x in theirs.items() if not name.startswith("blocks.1.")}
    assert shapes == {
        "stem.proj.weight": (24, 3, 4, 4), "stem.proj.bias": (24,), "norm.weight": (24,), "norm.bias": (24,),
        "blocks.0.norm1.weight": (24,), "blocks.0.norm1.bias": (24,),
        "blocks.0.norm2.weight": (24,), "blocks.0.norm2.bias": (24,),
        "blocks.0.mlp_tokens.fc1.weight": (12, 9), "blocks.0.mlp_tokens.fc1.bias": (12,),
        "blocks.0.mlp_tokens.fc2.weight": (9, 12), "blocks.0.mlp_tokens.fc2.bias": (9,),
        "blocks.0.mlp_channels.fc1.weight": (40, 24), "blocks.0.mlp_channels.fc1.bias": (40,),
        "blocks.0.mlp_channels.fc2.weight": (24, 40), "blocks.0.mlp_channels.fc2.bias": (24,),
        "head.weight": (7, 24), "head.bias": (7,),
    }  # fmt: skip
    np.testing.assert_array_equal(theirs["stem.proj.weight"][5, 2, 1, 3], arrays["stem/kernel"][1, 3, 2, 5])
    np.testing.assert_array_equal(theirs["head.weight"], arrays["head/kernel"].T)


def test_attention_of_timm_has_query_key_and_value_in_one_matrix():
    arrays = random_weights(SMALL["vit"]).arrays
    theirs = get_format("timm", "vit").to_theirs(arrays)
    tokens = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    prefix = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    together = tokens @ theirs["blocks.1.attn.qkv.weight"].T + theirs["blocks.1.attn.qkv.bias"]
    each = [
        np.einsum("tc,chd->thd", tokens, arrays[f"{prefix}/{part}/kernel"]) + arrays[f"{prefix}/{part}/bias"]
        for part in ("query", "key", "value")
    ]
    np.testing.assert_allclose(together.reshape(3, 3, 2, 64).swapaxes(0, 1), each, rtol=1e-4, atol=1e-5)
    mixed = np.random.default_rng(1).normal(size=(3, 2, 64)).astype(np.float32)
    out = np.einsum("thd,hdc->tc", mixed, arrays[f"{prefix}/out/kernel"])
    np.testing.assert_allclose(mixed.reshape(3, 128) @ theirs["blocks.1.attn.proj.weight"].T, out, rtol=1e-4, atol=1e-5)


def test_internal_files_may_have_axes_of_length_1_and_count_modules_together():
    arrays = random_weights(SMALL["mixer"]).arrays
    internal = get_format("internal", "mixer").to_theirs(arrays)
    odd = {}
    for name, x in internal.items():
        name = name.replace("LayerNorm_1", "LayerNorm_2")
        odd[name] = x[None, :, None] if "_phase_0/" in name else x
    for name, x in find_format(odd).to_ours(odd).items():
        np.testing.assert_array_equal(x, arrays[name])


def test_bit_files_may_count_their_convolutions():
    arrays = random_weights(SMALL["resnet"]).arrays
    theirs = get_format("released", "resnet").to_theirs(arrays)
    odd = {name.replace("proj/standardized_conv2d", "proj/standardized_conv2d_3"): x for name, x in theirs.items()}
    assert odd.keys() != theirs.keys()
    assert find_format(odd).to_ours(odd).keys() == arrays.keys()


def test_an_array_without_a_place_and_one_with_other_axes_are_named():
    format = get_format("timm", "mixer")
    theirs = format.to_theirs(random_weights(SMALL["mixer"]).arrays)
    with pytest.raises(UserError, match=r"no place in a mixer of the timm format: blocks\.0\.gamma, ema\.decay"):
        format.to_ours(theirs | {"ema.decay": np.zeros(1), "blocks.0.gamma": np.zeros(1)})
    with pytest.raises(UserError, match=r"stem\.proj\.weight has shape \(24, 48\)"):
        format.to_ours(theirs | {"stem.proj.weight": np.zeros((24, 48))})


def test_two_spellings_of_one_name_are_refused():
    format = get_format("internal", "mixer")
    internal = format.to_theirs(random_weights(SMALL["mixer"]).arrays)
    twice = internal | {"Mixer/encoderblock_0/LayerNorm_2/bias": np.zeros(24, np.float32)}
    with pytest.raises(UserError, match="two spellings of one"):
        format.to_ours(twice)


def test_a_format_that_a_family_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(UserError, match="choose one of released, timm, transformers"):
        get_format("internal", "vit")
