"""Recognising a model is the inverse of making it."""

import re

import jax
import jax.numpy as jnp
import pytest

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.config import default_config
from mixer_jax.models.identify import ModelSpec, identify
from mixer_jax.models.registry import make_model, param_shapes

VARIANTS = ["S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14"]
MODELS = [
    *(ModelSpec(family, {"variant": variant}, 1000, 224) for family in ("mixer", "vit") for variant in VARIANTS),
    *(
        ModelSpec("resnet", {"variant": f"R{depth}x{factor}"}, 10, 224)
        for depth in (50, 101, 152, 200)
        for factor in (1, 2, 3, 4)
    ),
    ModelSpec("mixer", {"variant": "B/16", "tokens_mlp_dim": 1536}, 1000, 448),
    ModelSpec("mixer", {"variant": "L/8", "num_blocks": 3}, None, 64),
    ModelSpec("vit", {"variant": "B/16", "pooling": "mean", "pre_logits_dim": 768}, 21_843, 384),
    ModelSpec("resnet", {"variant": "R50x1", "hidden_dim": 96}, None, 224),
]


def kinds(model: ModelSpec) -> dict[str, tuple]:
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    shapes = param_shapes(make_model(model.config(), model.num_classes), images)
    return {name: (x.dtype.name, x.shape) for name, x in named_arrays(shapes).items()}


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_model_is_known_by_its_parameters(model: ModelSpec):
    assert identify(kinds(model)) == model


def test_its_words_and_flags_say_what_a_config_must():
    model = MODELS[-4]
    assert str(model) == "Mixer-B/16 (tokens_mlp_dim=1536) with 1000 classes, for 448 px"
    config = default_config()
    for name, value in model.options().items():
        field, _, option = name.partition(".")
        if option:
            config[field][option] = value
        else:
            config[field] = value
    assert make_model(config.model, config.num_classes) == make_model(model.config(), 1000)
    assert config.image_size == 448


@pytest.mark.parametrize("without", ["stem/kernel", "MixerBlock_0/channel_mixing/Dense_0/kernel"])
def test_what_lacks_an_array_that_says_what_it_is_is_not_recognised(without):
    some = kinds(MODELS[0])
    del some[without]
    assert identify(some) is None
    assert identify({}) is None


def test_a_file_of_very_many_blocks_is_no_model_and_found_to_be_none_at_once():
    names = [f"MixerBlock_{i}/token_mixing/Dense_0/kernel" for i in range(20_000)]
    shapes = dict.fromkeys(names, ("float32", (4, 2))) | {"stem/kernel": ("float32", (2, 2, 3, 4))}
    shapes["MixerBlock_0/channel_mixing/Dense_0/kernel"] = ("float32", (4, 2))
    assert identify(shapes) is None
    few = {name: signature for name, signature in shapes.items() if re.match(r"stem|MixerBlock_[0-9]/", name)}
    assert identify(few).fields["num_blocks"] == 10
