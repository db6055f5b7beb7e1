"""Laws that every model family keeps, over one table of small models; sizes and parameter trees over one table of real ones."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.config import UserError, default_config
from mixer_jax.models.registry import FAMILIES, make_model
from mixer_jax.models.resnet import ResNet, Size

CLASSES, HEAD_BIAS = 5, -2.0


def model_config(**changes) -> ConfigDict:
    config = default_config().model
    config.update(changes)
    return config


def tiny(**changes) -> nn.Module:
    return make_model(
        model_config(variant="S/4", num_blocks=2, hidden_dim=8, channels_mlp_dim=16, head_bias_init=HEAD_BIAS, **changes), CLASSES
    )


@dataclasses.dataclass(frozen=True)
class Row:
    family: str
    model: nn.Module
    features: dict[str, tuple[int, ...]]  # shapes for a 12 x 12 image, without the batch
    remat_units: int  # blocks that remat recomputes
    # Parameters that have no gradient: the last bias of token mixing shifts all channels of a token alike, which every layer norm
    # undoes; a bias of the keys shifts all of a query's scores alike, which the softmax undoes.
    unreached: tuple[str, ...] = ()


KEY_BIASES = tuple(f"Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/key/bias" for i in (0, 1))
ROWS = {
    "mixer": Row(
        "mixer",
        tiny(family="mixer", tokens_mlp_dim=12),
        {"stem": (9, 8), "MixerBlock_0": (9, 8), "MixerBlock_1": (9, 8), "pre_logits": (8,)},
        remat_units=2,
        unreached=("MixerBlock_0/token_mixing/Dense_1/bias", "MixerBlock_1/token_mixing/Dense_1/bias"),
    ),
    "vit": Row(
        "vit",
        tiny(family="vit", num_heads=2),
        {"stem": (9, 8), "encoderblock_0": (10, 8), "encoderblock_1": (10, 8), "pre_logits": (8,)},
        remat_units=2,
        unreached=KEY_BIASES,
    ),
    "vit that pools, with a pre-logits layer": Row(
        "vit",
        tiny(family="vit", num_heads=2, pooling="mean", pre_logits_dim=6),
        {"stem": (9, 8), "encoderblock_0": (9, 8), "encoderblock_1": (9, 8), "pre_logits": (6,)},
        remat_units=2,
        unreached=KEY_BIASES,
    ),
    "resnet": Row(
        "resnet",
        ResNet(CLASSES, Size(units=(1, 2), base_width=32), head_bias_init=HEAD_BIAS),  # variants with a name are too deep here
        {"root_block": (3, 3, 32), "block1": (3, 3, 128), "block2": (2, 2, 256), "pre_logits": (256,)},
        remat_units=3,
    ),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
on_patches = pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in ROWS.items() if row.family in ("mixer", "vit")]
)
# Every kind of regularisation that a row's family has, at a strength that two runs cannot survive alike.
REGULARISED = [
    pytest.param(row.model, {option: 0.5}, id=f"{option} of {name}")
    for name, row in ROWS.items()
    for option in ("dropout", "stoch_depth")
    if option in FAMILIES[row.family].options
]
IMAGES = np.random.default_rng(7).uniform(-1, 1, (8, 12, 12, 3)).astype(np.float32)
LABELS = np.arange(8) % CLASSES
# The laws hold however well the compiler does its work, and it is quickest when it does little.
UNOPTIMISED = {"xla_backend_optimization_level": 0}
jit_of_model = functools.partial(jax.jit, static_argnums=0, compiler_options=UNOPTIMISED)


def shapes_of(model: nn.Module, images) -> dict:
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def random_params(model: nn.Module, images=IMAGES) -> dict:
    """Parameters of which none is at its initial zero or one."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes_of(model, images))


@functools.cache
def initial_params(model: nn.Module) -> dict:
    return jax.jit(model.init, compiler_options=UNOPTIMISED)(jax.random.key(0), IMAGES)["params"]


@jit_of_model
def apply(model: nn.Module, params: dict, images: np.ndarray) -> tuple[jax.Array, dict[str, jax.Array]]:
    return model.apply({"params": params}, images)


@jit_of_model
def apply_in_training(model: nn.Module, params: dict, seed: int, images=IMAGES) -> tuple[jax.Array, dict[str, jax.Array]]:
    return model.apply({"params": params}, images, train=True, rngs={"dropout": jax.random.key(seed)})


@jit_of_model
def loss_and_gradients(model: nn.Module, params: dict) -> tuple[tuple[jax.Array, jax.Array], dict]:
    """(mean cross-entropy on LABELS, logits), gradients."""

    def loss(params):
        logits, _ = model.apply({"params": params}, IMAGES, train=True, rngs={"dropout": jax.random.key(0)})
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean(), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


def program(model: nn.Module, train: bool) -> str:
    """What the model computes, as text."""
    params = {"params": shapes_of(model, IMAGES)}
    return str(jax.make_jaxpr(functools.partial(model.apply, train=train))(params, IMAGES))


def test_every_family_has_a_row():
    assert {row.family for row in ROWS.values()} == FAMILIES.keys()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@every_row
def test_parameters_logits_and_pre_logits_are_float32_and_the_other_features_of_the_models_dtype(row, dtype):
    model = row.model.clone(dtype=dtype)
    (logits, features), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), IMAGES)
    assert (logits.shape, logits.dtype) == ((8, CLASSES), jnp.float32)
    dtypes = {name: jnp.float32 if name == "pre_logits" else dtype for name in row.features}
    expected = {name: ((8, *shape), dtypes[name]) for name, shape in row.features.items()}
    assert {name: (x.shape, x.dtype) for name, x in features.items()} == expected
    assert set(variables) == {"params"}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@every_row
def test_bfloat16_gives_finite_gradients_and_logits_close_to_those_of_float32(row):
    params = random_params(row.model)
    (_, exact), _ = loss_and_gradients(row.model, params)
    (_, rough), grads = loss_and_gradients(row.model.clone(dtype=jnp.bfloat16), params)
    assert 1e-5 < np.linalg.norm(exact - rough) / np.linalg.norm(exact) < 0.05
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@every_row
def test_a_new_head_answers_its_bias_whatever_it_sees(row):
    params = initial_params(row.model)
    logits, features = apply(row.model, params, IMAGES)
    np.testing.assert_array_equal(logits, np.full((8, CLASSES), HEAD_BIAS))
    assert np.ptp(features["pre_logits"], axis=0).max() > 1e-3  # it sees different things, but
    kernel = next(x for name, x in named_arrays(params).items() if name.startswith("head/") and name.endswith("/kernel"))
    assert np.all(kernel == 0)


@every_row
def test_without_classes_the_output_is_the_pre_logits(row):
    body, params = row.model.clone(num_classes=None), random_params(row.model)
    _, features = apply(row.model, params, IMAGES)
    del params["head"]
    assert shapes_of(body, IMAGES).keys() == params.keys()
    output, features_of_body = apply(body, params, IMAGES)
    np.testing.assert_array_equal(output, features_of_body["pre_logits"])
    np.testing.assert_allclose(output, features["pre_logits"], rtol=1e-4, atol=1e-5)


@every_row
def test_examples_do_not_see_each_other_and_keep_their_order(row):
    params = random_params(row.model)
    together, _ = apply(row.model, params, IMAGES)
    assert np.ptp(together, axis=0).min() > 1e-2  # the images are told apart
    order = np.array([3, 1, 5, 0, 7, 4, 2, 6])
    np.testing.assert_allclose(apply(row.model, params, IMAGES[order])[0], together[order], rtol=1e-4, atol=1e-5)
    others = np.concatenate([IMAGES[:1], -IMAGES[1:]])
    np.testing.assert_allclose(apply(row.model, params, others)[0][0], together[0], rtol=1e-4, atol=1e-5)


@every_row
def test_a_gradient_reaches_every_parameter_that_can_have_one(row):
    _, grads = loss_and_gradients(row.model, random_params(row.model))
    norms = {name: float(np.linalg.norm(x)) for name, x in named_arrays(grads).items()}
    assert {name for name, norm in norms.items() if norm < 1e-6 * max(norms.values())} == set(row.unreached), norms


@every_row
def test_remat_changes_neither_parameters_nor_loss_nor_gradients(row):
    options = (
        {"stoch_depth": 0.5} if "stoch_depth" in FAMILIES[row.family].options else {}
    )  # the same draw again in the recomputation
    without, with_remat = (row.model.clone(remat=remat, **options) for remat in (False, True))
    params = random_params(row.model)
    assert jax.tree.structure(shapes_of(with_remat, IMAGES)) == jax.tree.structure(params)
    for a, b in zip(*(jax.tree.leaves(loss_and_gradients(model, params)) for model in (without, with_remat)), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(a).max())))


@pytest.mark.parametrize("remat", [False, True])
@every_row
def test_remat_marks_every_block_and_nothing_else_for_recomputation(row, remat):
    assert program(row.model.clone(remat=remat), train=False).count("remat2[") == (row.remat_units if remat else 0)


@pytest.mark.parametrize(("model", "options"), REGULARISED)
def test_regularisation_is_random_in_training_and_absent_in_evaluation(model, options):
    regularised, params = model.clone(**options), random_params(model)
    once, again, other = (apply_in_training(regularised, params, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, other)
    assert program(regularised, train=False) == program(model, train=False)


@on_patches
def test_a_block_drops_each_branch_of_each_example_by_itself_at_its_own_rate(row):
    """Where both branches are dropped, with probability p squared, a block's output is its input."""
    model = row.model.clone(size=dataclasses.replace(row.model.size, num_blocks=3), stoch_depth=0.8)
    images = jnp.tile(IMAGES[:1, :4, :4], (4096, 1, 1, 1))  # of one patch
    params = random_params(model, images)
    _, trained = apply_in_training(model, params, 0, images)
    _, evaluated = apply(model, params, images[:1])
    first, *others = (name for name in trained if re.fullmatch(r".*lock_\d", name))
    np.testing.assert_allclose(trained[first], np.tile(evaluated[first], (4096, 1, 1)), rtol=1e-4, atol=1e-5)  # never dropped
    unchanged = [np.all(trained[x] == trained[y], axis=(1, 2)).mean() for x, y in itertools.pairwise((first, *others))]
    assert unchanged == pytest.approx([0.4**2, 0.8**2], abs=0.03)


@on_patches
def test_an_image_that_patches_do_not_tile_is_refused(row):
    with pytest.raises(UserError, match="multiples of 4"):
        shapes_of(row.model, jnp.zeros((1, 12, 14, 3)))


@every_row
def test_without_regularisation_training_answers_as_evaluation_does(row):
    assert program(row.model, train=True) == program(row.model, train=False)


@every_row
def test_it_learns_eight_random_images_by_heart(row):
    optimizer = optax.adam(0.05)

    @jax.jit
    def update(grads, opt_state, params):
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state

    params, losses = initial_params(row.model), []
    opt_state = optimizer.init(params)
    for _ in range(50):
        (loss, _), grads = loss_and_gradients(row.model, params)
        params, opt_state = update(grads, opt_state, params)
        losses.append(float(loss))
    assert losses[0] == pytest.approx(np.log(CLASSES), rel=1e-3)
    assert losses[-1] < 0.1


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
    model = make_model(model_config(family=family, variant=variant, pre_logits_dim=pre_logits_dim), num_classes)
    return named_arrays(shapes_of(model, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)))


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
