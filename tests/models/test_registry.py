"""From config.model to a model: names, widths, options, and the refusal of those that a family has not."""

import dataclasses

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.models import mixer, resnet, vit
from mixer_jax.models.registry import FAMILIES, make_model
from mixer_jax.options import MODEL, family_options


def model_config(**changes) -> ConfigDict:
    config = default_config().model
    config.update(changes)
    return config


VARIANT = {"mixer": "B/16", "vit": "B/16", "resnet": "R50x1"}
# A value of each option that no family has by default.
OTHER_VALUES = {
    "num_blocks": 3, "hidden_dim": 96, "channels_mlp_dim": 5, "tokens_mlp_dim": 5, "tile_size": 224, "num_heads": 4,
    "pooling": "mean", "pre_logits_dim": 8, "dropout": 0.1, "stoch_depth": 0.1, "stoch_depth_rescale": True,
    "dtype": "bfloat16", "remat": True, "head_bias_init": -2.0, "permutation": "all_pixels",
}  # fmt: skip
OPTIONS = [(family, option) for family in FAMILIES for option in OTHER_VALUES]


@pytest.mark.parametrize("family", ["mixer", "vit"])
@pytest.mark.parametrize(
    ("variant", "size", "patch"),
    [("S/8", "S", 8), ("B/14", "B", 14), ("B/16", "B", 16), ("L/32", "L", 32), ("H/14", "H", 14)],
)
def test_a_variant_is_a_size_of_the_papers_table_with_any_patch_size(family, variant, size, patch):
    model = make_model(model_config(family=family, variant=variant), 10)
    sizes = {"mixer": mixer.SIZES, "vit": vit.SIZES}[family]
    assert (model.size, model.patch_size, model.num_classes) == (sizes[size], patch, 10)


@pytest.mark.parametrize(
    ("variant", "units", "width"),
    [
        ("R50x1", (3, 4, 6, 3), 64),
        ("R101x3", (3, 4, 23, 3), 192),
        ("R152x4", (3, 8, 36, 3), 256),
        ("R200x2", (3, 24, 36, 3), 128),
    ],
)
def test_a_variant_of_resnet_is_a_number_of_layers_and_a_width_factor(variant, units, width):
    model = make_model(model_config(family="resnet", variant=variant), 10)
    assert (model.size.units, model.size.root_width, model.num_classes) == (units, width, 10)


@pytest.mark.parametrize(("family", "option"), OPTIONS)
def test_an_option_reaches_the_model_alone_or_the_family_refuses_it_with_those_it_has(family, option):
    config = model_config(family=family, variant=VARIANT[family])
    plain = make_model(config, 10)
    config[option] = OTHER_VALUES[option]
    if option not in family_options(family):
        with pytest.raises(UserError, match=rf"config\.model\.{option} .* {family} .*variant, hidden_dim"):
            make_model(config, 10)
        return
    changed = make_model(config, 10)
    if option == "tile_size" and family != "mixer":  # in one recipe for all, and without a meaning for these
        assert changed == plain
        return
    fields = [field.name for field in dataclasses.fields(plain) if field.name not in ("parent", "name")]
    differing = {name for name in fields if getattr(plain, name) != getattr(changed, name)}
    if differing == {"size"}:
        plain, changed = plain.size, changed.size
        differing = {name for name in vars(plain) if getattr(plain, name) != getattr(changed, name)}
    name = "base_width" if (family, option) == ("resnet", "hidden_dim") else option
    assert differing == {name}
    assert getattr(changed, name) == (jnp.bfloat16 if option == "dtype" else OTHER_VALUES[option])


def test_every_option_is_of_a_family():
    known = {option for family in FAMILIES for option in family_options(family)} - {"family", "variant"}
    assert known == OTHER_VALUES.keys() == set(default_config().model) - {"family", "variant"}
    assert MODEL[0].choices == tuple(FAMILIES)


@pytest.mark.parametrize("family", ["mixer", "vit"])
@pytest.mark.parametrize(
    "variant", ["", "B", "B/", "B/0", "B/x", "B/-16", "B16", "/16", "b/16", "M/16", "B/16/2", "B/1.5", "R50x1"]
)
def test_a_variant_that_is_not_a_size_and_a_patch_is_refused_with_the_names_there_are(family, variant):
    with pytest.raises(UserError, match=rf"config\.model\.variant.*{family}.*S, B, L, H.*H/14"):
        make_model(model_config(family=family, variant=variant), 10)


@pytest.mark.parametrize("variant", ["", "B/16", "R50", "R50x", "R50x0", "R50x5", "R50x1x1", "R34x1", "r50x1", "50x1", "R50x01"])
def test_a_variant_that_is_no_resnet_is_refused_with_the_names_there_are(variant):
    with pytest.raises(UserError, match=r"config\.model\.variant.*R50, R101, R152, R200.*1, 2, 3, 4"):
        make_model(model_config(family="resnet", variant=variant), 10)


@pytest.mark.parametrize("changes", [{"num_heads": 5}, {"hidden_dim": 100}])
def test_heads_that_do_not_divide_the_channels_are_refused(changes):
    with pytest.raises(UserError, match=r"config\.model\.num_heads.*divide config\.model\.hidden_dim"):
        make_model(model_config(family="vit", variant="B/16", **changes), 10)


def test_a_width_that_groups_do_not_divide_is_refused():
    with pytest.raises(UserError, match=r"config\.model\.hidden_dim is 24.*multiple of 32"):
        make_model(model_config(family="resnet", variant="R50x2", hidden_dim=24), 10)
    assert make_model(model_config(family="resnet", variant="R50x4", hidden_dim=24), 10).size == resnet.Size((3, 4, 6, 3), 4, 24)


@pytest.mark.parametrize("family", ["", "Mixer", "transformer"])
def test_a_family_that_is_not_there_is_refused_with_those_that_are(family):
    with pytest.raises(UserError, match=r"config\.model\.family.*mixer, vit, resnet"):
        make_model(model_config(family=family), 10)
