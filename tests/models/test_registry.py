"""From config.model to a model: names, widths, and the contract that every family keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mixer_jax.config import UserError, default_config
from mixer_jax.models.mixer import SIZES
from mixer_jax.models.registry import FAMILIES, make_model

# A small model of each family, and the size of its images.
SMALL = {
    "mixer": (
        {"variant": "S/4", "num_blocks": 1, "hidden_dim": 8, "tokens_mlp_dim": 6, "channels_mlp_dim": 10, "head_bias_init": -2.0},
        8,
    ),
}


def model_config(**changes) -> ConfigDict:
    config = default_config().model
    config.update(changes)
    return config


def test_every_family_has_a_small_model_in_this_file():
    assert SMALL.keys() == FAMILIES.keys()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", SMALL)
def test_a_family_answers_float32_logits_and_pooled_features_from_float32_parameters(family, dtype):
    changes, image_size = SMALL[family]
    model = make_model(model_config(family=family, dtype=dtype, **changes), 7)
    images = jax.ShapeDtypeStruct((3, image_size, image_size, 3), jnp.float32)
    (logits, features), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)
    assert (features["pre_logits"].shape, features["pre_logits"].dtype) == ((3, 8), jnp.float32)
    assert set(variables) == {"params"}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("family", SMALL)
def test_a_family_without_classes_answers_its_pre_logits_and_with_new_ones_the_bias_of_its_head(family):
    changes, image_size = SMALL[family]
    config = model_config(family=family, **changes)
    images = np.random.default_rng(0).uniform(-1, 1, (3, image_size, image_size, 3)).astype(np.float32)
    (logits, features), variables = jax.jit(make_model(config, 7).init_with_output)(jax.random.key(0), images)
    np.testing.assert_array_equal(logits, np.full((3, 7), -2.0))  # whatever it sees, because
    assert np.all(variables["params"]["head"]["kernel"] == 0)
    assert np.ptp(features["pre_logits"], axis=0).min() > 1e-3

    body = {"params": {name: value for name, value in variables["params"].items() if name != "head"}}
    pooled, _ = jax.jit(make_model(config, None).apply)(body, images)
    np.testing.assert_allclose(pooled, features["pre_logits"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "size", "patch"),
    [("S/8", "S", 8), ("B/14", "B", 14), ("B/16", "B", 16), ("L/32", "L", 32), ("H/14", "H", 14)],
)
def test_a_variant_is_a_size_of_table_1_with_any_patch_size(variant, size, patch):
    model = make_model(model_config(variant=variant), 10)
    assert (model.size, model.patch_size, model.num_classes) == (SIZES[size], patch, 10)


@pytest.mark.parametrize("field", ["num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim"])
def test_a_width_of_the_config_replaces_that_of_the_variant_and_no_other(field):
    replaced, table = make_model(model_config(variant="B/16", **{field: 3}), 10).size, SIZES["B"]
    differing = {name: getattr(replaced, name) for name in vars(table) if getattr(replaced, name) != getattr(table, name)}
    assert differing == {field: 3}


@pytest.mark.parametrize(
    ("changes", "attributes"),
    [
        ({"dropout": 0.1}, {"dropout": 0.1}),
        ({"stoch_depth": 0.1, "stoch_depth_rescale": True}, {"stoch_depth": 0.1, "stoch_depth_rescale": True}),
        ({"dtype": "bfloat16"}, {"dtype": jnp.bfloat16}),
        ({"remat": True}, {"remat": True}),
    ],
)
def test_options_of_the_config_reach_the_model(changes, attributes):
    model = make_model(model_config(**changes), 10)
    assert {name: getattr(model, name) for name in attributes} == attributes


@pytest.mark.parametrize("variant", ["", "B", "B/", "B/0", "B/x", "B/-16", "B16", "/16", "b/16", "M/16", "B/16/2", "B/1.5"])
def test_a_variant_that_is_not_a_size_and_a_patch_is_refused_with_the_names_there_are(variant):
    with pytest.raises(UserError, match=r"config\.model\.variant.*S, B, L, H.*H/14"):
        make_model(model_config(variant=variant), 10)


@pytest.mark.parametrize("family", ["", "Mixer", "transformer"])
def test_a_family_that_is_not_there_is_refused_with_those_that_are(family):
    with pytest.raises(UserError, match=r"config\.model\.family.*mixer"):
        make_model(model_config(family=family), 10)
