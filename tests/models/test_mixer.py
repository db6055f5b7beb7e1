"""What holds for every Mixer: its sizes, its parameter tree, its named features, its randomness and its symmetries."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.config import UserError, default_config
from mixer_jax.models.layers import StochasticDepth, stochastic_depth_rate
from mixer_jax.models.mixer import Mixer, MlpBlock, Size
from mixer_jax.models.registry import make_mixer

# Exact numbers of parameters at 224 pixels, from Table 1's specification: without a head, with 1000 and with 21 843 classes.
PARAMETERS = {
    "S/32": (18_591_624, 19_104_624, 29_797_083),
    "S/16": (18_015_264, 18_528_264, 29_220_723),
    "B/32": (59_524_428, 60_293_428, 76_321_695),
    "B/16": (59_111_472, 59_880_472, 75_908_739),
    "L/32": (205_914_264, 206_939_264, 228_303_339),
    "L/16": (207_171_168, 208_196_168, 229_560_243),
    "H/14": (431_069_952, 432_350_952, 459_050_835),
}
MILLIONS_IN_THE_PAPER = {"S/32": 19, "S/16": 18, "B/32": 60, "B/16": 59, "L/32": 206, "L/16": 207, "H/14": 431}

# The tree of the released Mixer-B_16.npz (ImageNet): a file format.
GOLDEN_OUTSIDE_BLOCKS = {
    "head/bias": (1000,),
    "head/kernel": (768, 1000),
    "pre_head_layer_norm/bias": (768,),
    "pre_head_layer_norm/scale": (768,),
    "stem/bias": (768,),
    "stem/kernel": (16, 16, 3, 768),
}
GOLDEN_BLOCK = {
    "LayerNorm_0/bias": (768,),
    "LayerNorm_0/scale": (768,),
    "LayerNorm_1/bias": (768,),
    "LayerNorm_1/scale": (768,),
    "channel_mixing/Dense_0/bias": (3072,),
    "channel_mixing/Dense_0/kernel": (768, 3072),
    "channel_mixing/Dense_1/bias": (768,),
    "channel_mixing/Dense_1/kernel": (3072, 768),
    "token_mixing/Dense_0/bias": (384,),
    "token_mixing/Dense_0/kernel": (196, 384),
    "token_mixing/Dense_1/bias": (196,),
    "token_mixing/Dense_1/kernel": (384, 196),
}

SMALL = Size(num_blocks=2, hidden_dim=8, channels_mlp_dim=16, tokens_mlp_dim=12)


def shapes_of(variant: str, num_classes: int | None) -> dict[str, jax.ShapeDtypeStruct]:
    config = default_config().model
    config.variant = variant
    model = make_mixer(config, num_classes)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return named_arrays(jax.eval_shape(model.init, jax.random.key(0), images)["params"])


def small_mixer(**changes) -> Mixer:
    return Mixer(**({"num_classes": 5, "patch_size": 4, "size": SMALL} | changes))


def random_images(batch: int = 4, size: int = 12) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)


def random_params(model: Mixer, images: np.ndarray) -> dict:
    """Parameters of which none is at its initial zero or one."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def apply(model: Mixer, params: dict, images: np.ndarray) -> tuple[jax.Array, dict[str, jax.Array]]:
    return model.apply({"params": params}, images)


@functools.partial(jax.jit, static_argnums=0)
def apply_in_training(model: Mixer, params: dict, images: np.ndarray, seed: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    return model.apply({"params": params}, images, train=True, rngs={"dropout": jax.random.key(seed)})


@pytest.mark.parametrize("variant", PARAMETERS)
def test_a_variant_has_exactly_the_parameters_of_table_1(variant):
    counts = [sum(x.size for x in shapes_of(variant, classes).values()) for classes in (None, 1000, 21_843)]
    assert tuple(counts) == PARAMETERS[variant]
    assert round(counts[0] / 1e6) == MILLIONS_IN_THE_PAPER[variant]


def test_the_parameter_tree_of_b16_is_that_of_the_released_weights():
    shapes = {name: x.shape for name, x in shapes_of("B/16", 1000).items()}
    blocks = {f"MixerBlock_{i}/{name}": shape for i in range(12) for name, shape in GOLDEN_BLOCK.items()}
    assert shapes == GOLDEN_OUTSIDE_BLOCKS | blocks


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_features_are_named_and_shaped_from_stem_to_pre_logits(dtype):
    (logits, features), _ = jax.eval_shape(small_mixer(dtype=dtype).init_with_output, jax.random.key(0), random_images())
    tokens = ((4, 9, 8), dtype)
    assert {name: (x.shape, x.dtype) for name, x in features.items()} == {
        "stem": tokens, "MixerBlock_0": tokens, "MixerBlock_1": tokens, "pre_logits": ((4, 8), jnp.float32),
    }  # fmt: skip
    assert (logits.shape, logits.dtype) == ((4, 5), jnp.float32)


def test_without_classes_the_output_is_the_pre_logits():
    model, images = small_mixer(num_classes=None), random_images()
    params = random_params(model, images)
    output, features = apply(model, params, images)
    np.testing.assert_array_equal(output, features["pre_logits"])
    assert "head" not in params


def test_in_bfloat16_parameters_and_logits_stay_float32_and_close_to_those_of_float32():
    images, model, half = random_images(), small_mixer(), small_mixer(dtype=jnp.bfloat16)
    params = random_params(model, images)
    initial = jax.eval_shape(half.init, jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(initial)} == {jnp.dtype("float32")}

    (exact, _), (rough, _) = apply(model, params, images), apply(half, params, images)
    assert rough.dtype == jnp.float32
    assert 1e-5 < np.linalg.norm(exact - rough) / np.linalg.norm(exact) < 0.05


def test_remat_changes_neither_the_parameter_tree_nor_outputs_nor_gradients():
    images, options = random_images(), {"stoch_depth": 0.5}
    models = [small_mixer(remat=remat, **options) for remat in (False, True)]

    def loss(params, model):
        return jnp.sum(apply_in_training(model, params, images, 0)[0] ** 2)

    params = random_params(models[0], images)
    without, with_remat = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, model) for model in models)
    assert jax.tree.structure(random_params(models[1], images)) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(without), jax.tree.leaves(with_remat), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("remat", [False, True])
def test_remat_marks_every_block_and_nothing_else_for_recomputation(remat):
    model, images = small_mixer(remat=remat), random_images()
    jaxpr = jax.make_jaxpr(lambda params: model.apply({"params": params}, images))(random_params(model, images))
    assert str(jaxpr).count("remat2[") == (SMALL.num_blocks if remat else 0)


@pytest.mark.parametrize("num_blocks", [1, 2, 12, 32])
def test_stochastic_depth_rises_linearly_from_0_in_the_first_block_to_s_in_the_last(num_blocks):
    rates = [stochastic_depth_rate(i, num_blocks, 0.1) for i in range(num_blocks)]
    assert rates == pytest.approx(np.linspace(0, 0.1, num_blocks))


def test_a_block_drops_each_branch_of_each_example_by_itself_at_its_own_rate():
    """Where both branches are dropped, with probability p squared, a block's output is its input."""
    model = small_mixer(patch_size=2, size=Size(3, 4, 4, 4), stoch_depth=0.8)
    images = np.tile(random_images(1, 4), (4096, 1, 1, 1))
    _, features = apply_in_training(model, random_params(model, images), images, 0)
    outputs = [features[name] for name in ("stem", "MixerBlock_0", "MixerBlock_1", "MixerBlock_2")]
    unchanged = [np.all(x == y, axis=(1, 2)).mean() for x, y in itertools.pairwise(outputs)]
    assert unchanged == pytest.approx([0.0, 0.4**2, 0.8**2], abs=0.03)


@pytest.mark.parametrize(("rescale", "kept", "mean"), [(False, 1.0, 0.75), (True, 4 / 3, 1.0)])
def test_a_dropped_example_is_all_zero_and_a_kept_one_scaled_as_its_convention_says(rescale, kept, mean):
    module = StochasticDepth(rate=0.25, rescale=rescale)
    y = module.apply({}, jnp.ones((8192, 2, 3)), train=True, rngs={"dropout": jax.random.key(0)})
    first = y[:, :1, :1]
    np.testing.assert_array_equal(y, jnp.broadcast_to(first, y.shape))  # one draw an example
    np.testing.assert_allclose(np.unique(first), [0.0, kept], rtol=1e-6)
    assert np.mean(y) == pytest.approx(mean, abs=0.02)


def test_dropout_follows_both_dense_layers():
    """Between identities, an element passes with probability (1 - p) squared, divided by as much."""
    block = MlpBlock(mlp_dim=64, dropout=0.5, dtype=jnp.float32)
    identity = {"kernel": jnp.eye(64), "bias": jnp.zeros(64)}
    x = jnp.full((256, 64), 20.0)  # gelu(20) = 20
    params = {"Dense_0": identity, "Dense_1": identity}
    y = block.apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(np.unique(y), [0.0, 80.0])
    assert np.mean(y > 0) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"stoch_depth": 0.5}, {"stoch_depth": 0.5, "stoch_depth_rescale": True}])
def test_regularisation_is_random_in_training_and_absent_in_evaluation(options):
    size = Size(num_blocks=2 if "stoch_depth" in options else 1, hidden_dim=4, channels_mlp_dim=4, tokens_mlp_dim=4)
    model, images = small_mixer(size=size, **options), random_images(16)
    params = random_params(model, images)
    once, again, other = (apply_in_training(model, params, images, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, other)
    np.testing.assert_array_equal(apply(model, params, images)[0], apply(small_mixer(size=size), params, images)[0])


def test_examples_do_not_see_each_other_and_keep_their_order():
    model, images = small_mixer(), random_images(6)
    params = random_params(model, images)
    together, _ = apply(model, params, images)
    assert np.ptp(together, axis=0).min() > 1e-2  # the images are told apart
    order = np.array([3, 1, 5, 0, 4, 2])
    np.testing.assert_allclose(apply(model, params, images[order])[0], together[order], rtol=1e-5, atol=1e-6)
    others = np.concatenate([images[:1], -images[1:]])
    np.testing.assert_allclose(apply(model, params, others)[0][0], together[0], rtol=1e-5, atol=1e-6)


def test_the_order_of_tokens_means_nothing_but_through_the_token_mixing_parameters():
    model, images = small_mixer(), random_images()
    params = random_params(model, images)
    order = np.random.default_rng(0).permutation(9)

    patches = images.reshape(4, 3, 4, 3, 4, 3).swapaxes(2, 3).reshape(4, 9, 4, 4, 3)
    permuted = patches[:, order].reshape(4, 3, 3, 4, 4, 3).swapaxes(2, 3).reshape(images.shape)
    relabelled = jax.tree.map(np.copy, params)
    for block in ("MixerBlock_0", "MixerBlock_1"):
        dense_0, dense_1 = (relabelled[block]["token_mixing"][name] for name in ("Dense_0", "Dense_1"))
        dense_0["kernel"] = dense_0["kernel"][order]
        dense_1["kernel"], dense_1["bias"] = dense_1["kernel"][:, order], dense_1["bias"][order]

    logits, _ = apply(model, params, images)
    assert not np.allclose(apply(model, params, permuted)[0], logits, atol=1e-2)
    np.testing.assert_allclose(apply(model, relabelled, permuted)[0], logits, rtol=1e-4, atol=1e-5)


def test_a_gradient_reaches_every_parameter_that_can_have_one():
    """The last bias of token mixing cannot: it shifts all channels of a token alike, which every layer norm undoes."""
    model, images = small_mixer(), random_images()
    grads = jax.grad(lambda params: jnp.sum(apply(model, params, images)[0] ** 2))(random_params(model, images))
    unreached = [name for name, grad in named_arrays(grads).items() if np.linalg.norm(grad) < 1e-5]
    assert unreached == [f"MixerBlock_{i}/token_mixing/Dense_1/bias" for i in range(2)]


@pytest.mark.parametrize(("patch", "height", "width"), [(16, 225, 224), (16, 224, 225), (14, 150, 150), (16, 9, 9), (32, 31, 33)])
def test_an_image_that_patches_do_not_tile_is_refused_and_sizes_that_fit_are_named(patch, height, width):
    with pytest.raises(UserError, match=r"for example \d+ or \d+") as refusal:
        jax.eval_shape(small_mixer(patch_size=patch).init, jax.random.key(0), jnp.zeros((1, height, width, 3)))
    fitting = [int(size) for size in re.search(r"for example (\d+) or (\d+)", str(refusal.value)).groups()]
    assert all(size > 0 and size % patch == 0 for size in fitting)
    assert "--config.image_size" in str(refusal.value)


@pytest.mark.parametrize("size", [8, 16])
def test_another_number_of_tokens_than_the_parameters_mix_is_refused_with_a_word_on_surgery(size):
    model = small_mixer()
    params = random_params(model, random_images(size=12))
    with pytest.raises(UserError, match=r"mix 9\b.*12 x 12.*surgery"):
        apply(model, params, random_images(size=size))
