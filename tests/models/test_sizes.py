"""Sizes and parameter trees of the real models: the papers' counts, and the names and shapes of the released files."""

import functools

import jax
import jax.numpy as jnp
import pytest

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.config import default_config
from mixer_jax.models.registry import FAMILIES, make_model, param_shapes

# Exact numbers of parameters at 224 pixels, from the papers' specifications by hand: without a head, and with 1000 classes (BiT:
# also those that timm's models of these names have).
PARAMETERS = {
    ("mixer", "S/32"): (18_591_624, 19_104_624),
    ("mixer", "S/16"): (18_015_264, 18_528_264),
    ("mixer", "B/32"): (59_524_428, 60_293_428),
    ("mixer", "B/16"): (59_111_472, 59_880_472),
    ("mixer", "L/32"): (205_914_264, 206_939_264),
    ("mixer", "L/16"): (207_171_168, 208_196_168),
    ("mixer", "H/14"): (431_069_952, 432_350_952),
    ("vit", "S/32"): (26_819_584, 27_332_584),
    ("vit", "S/16"): (25_715_200, 26_228_200),
    ("vit", "B/32"): (87_455_232, 88_224_232),
    ("vit", "B/16"): (85_798_656, 86_567_656),
    ("vit", "L/32"): (305_510_400, 306_535_400),
    ("vit", "L/16"): (303_301_632, 304_326_632),
    ("vit", "H/14"): (630_764_800, 632_045_800),
    ("resnet", "R50x1"): (23_500_352, 25_549_352),
    ("resnet", "R50x3"): (211_174_080, 217_319_080),
    ("resnet", "R101x1"): (42_492_480, 44_541_480),
    ("resnet", "R101x3"): (381_789_888, 387_934_888),
    ("resnet", "R152x2"): (232_238_208, 236_335_208),
    ("resnet", "R152x4"): (928_340_224, 936_533_224),
    ("resnet", "R200x3"): (562_488_000, 568_633_000),
}
# Table 1 of arXiv 2105.01601 and of arXiv 2010.11929, both without a head; ViT as it is pre-trained, with a pre-logits layer of
# its own width (its 307 M for L is L/32's; L/16 has 304 M): (family, variant, pre_logits_dim).
MILLIONS_IN_THE_PAPERS = {
    ("mixer", "S/32", 0): 19, ("mixer", "S/16", 0): 18, ("mixer", "B/32", 0): 60, ("mixer", "B/16", 0): 59,
    ("mixer", "L/32", 0): 206, ("mixer", "L/16", 0): 207, ("mixer", "H/14", 0): 431,
    ("vit", "B/16", 768): 86, ("vit", "L/32", 1024): 307, ("vit", "H/14", 1280): 632,
}  # fmt: skip


@functools.cache
def full_shapes(family: str, variant: str, num_classes: int, pre_logits_dim: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
    config = default_config().model
    config.update(family=family, variant=variant, pre_logits_dim=pre_logits_dim)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return named_arrays(param_shapes(make_model(config, num_classes), images))


def num_parameters(*model) -> tuple[int, int]:
    """Without the head, and with it."""
    sizes = {name: x.size for name, x in full_shapes(*model).items()}
    return sum(size for name, size in sizes.items() if not name.startswith("head/")), sum(sizes.values())


@pytest.mark.parametrize(("family", "variant"), PARAMETERS)
def test_a_variant_has_exactly_the_parameters_of_its_papers_specification(family, variant):
    assert num_parameters(family, variant, 1000) == PARAMETERS[family, variant]


@pytest.mark.parametrize(("family", "variant", "pre_logits_dim"), MILLIONS_IN_THE_PAPERS)
def test_a_variant_without_a_head_has_the_papers_millions(family, variant, pre_logits_dim):
    body, _ = num_parameters(family, variant, 1000, pre_logits_dim)
    assert round(body / 1e6) == MILLIONS_IN_THE_PAPERS[family, variant, pre_logits_dim]


# Parameter trees of released checkpoints: a file format. Mixer-B_16.npz (ImageNet), ViT-B_16.npz (ImageNet-21k, before
# fine-tuning), BiT-M-R50x1.npz (ImageNet-21k; below its "resnet/").
NORM_768 = {"bias": (768,), "scale": (768,)}


def dense(inputs: int, outputs: int) -> dict:
    return {"kernel": (inputs, outputs), "bias": (outputs,)}


def group_norm(channels: int) -> dict:
    return {"gamma": (channels,), "beta": (channels,)}


def conv(size: int, inputs: int, outputs: int) -> dict:
    return {"standardized_conv2d": {"kernel": (size, size, inputs, outputs)}}


def unit(inputs: int, inner: int, projects: bool) -> dict:
    return {
        "a": {"group_norm": group_norm(inputs)}
        | conv(1, inputs, inner)
        | ({"proj": conv(1, inputs, 4 * inner)} if projects else {}),
        "b": {"group_norm": group_norm(inner)} | conv(3, inner, inner),
        "c": {"group_norm": group_norm(inner)} | conv(1, inner, 4 * inner),
    }


def block(units: int, inputs: int, inner: int) -> dict:
    others = {f"unit{i:02d}": unit(4 * inner, inner, projects=False) for i in range(2, units + 1)}
    return {"unit01": unit(inputs, inner, projects=True)} | others


MIXER_BLOCK = {
    "LayerNorm_0": NORM_768,
    "LayerNorm_1": NORM_768,
    "channel_mixing": {"Dense_0": dense(768, 3072), "Dense_1": dense(3072, 768)},
    "token_mixing": {"Dense_0": dense(196, 384), "Dense_1": dense(384, 196)},
}
TO_HEADS = {"kernel": (768, 12, 64), "bias": (12, 64)}
ENCODER_BLOCK = {
    "LayerNorm_0": NORM_768,
    "MultiHeadDotProductAttention_1": {
        "query": TO_HEADS,
        "key": TO_HEADS,
        "value": TO_HEADS,
        "out": {"kernel": (12, 64, 768), "bias": (768,)},
    },
    "LayerNorm_2": NORM_768,
    "MlpBlock_3": {"Dense_0": dense(768, 3072), "Dense_1": dense(3072, 768)},
}
GOLDEN_TREES = {
    "mixer": (
        ("B/16", 1000),
        {
            "stem": {"kernel": (16, 16, 3, 768), "bias": (768,)},
            **{f"MixerBlock_{i}": MIXER_BLOCK for i in range(12)},
            "pre_head_layer_norm": NORM_768,
            "head": dense(768, 1000),
        },
    ),
    "vit": (
        ("B/16", 21_843, 768),
        {
            "cls": (1, 1, 768),
            "embedding": {"kernel": (16, 16, 3, 768), "bias": (768,)},
            "Transformer": {
                "posembed_input": {"pos_embedding": (1, 197, 768)},
                **{f"encoderblock_{i}": ENCODER_BLOCK for i in range(12)},
                "encoder_norm": NORM_768,
            },
            "pre_logits": dense(768, 768),
            "head": dense(768, 21_843),
        },
    ),
    "resnet": (
        ("R50x1", 21_843),
        {
            "root_block": conv(7, 3, 64),
            "block1": block(3, 64, 64),
            "block2": block(4, 256, 128),
            "block3": block(6, 512, 256),
            "block4": block(3, 1024, 512),
            "group_norm": group_norm(2048),
            "head": {"conv2d": {"kernel": (1, 1, 2048, 21_843), "bias": (21_843,)}},
        },
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parameter_tree_is_that_of_the_released_weights(family):
    model, tree = GOLDEN_TREES[family]
    golden = {
        jax.tree_util.keystr(path, simple=True, separator="/"): shape
        for path, shape in jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))[0]
    }
    assert {name: x.shape for name, x in full_shapes(family, *model).items()} == golden
