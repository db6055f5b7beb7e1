"""Laws that every model family keeps, over one table of small models. test_sizes.py has the models of the papers."""

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
from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.models.kernels import for_platform
from mixer_jax.models.registry import FAMILIES, compute_dtype, host_transform, make_model, param_shapes
from mixer_jax.models.resnet import ResNet, Size
from mixer_jax.options import family_options
from mixer_jax.parallel import make_mesh, path_name, use_mesh_in_models

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
    # Parameters whose gradient is zero. The last bias of token mixing adds one number to all channels of a token, and every layer
    # norm subtracts it again. The bias of the keys adds one number to all scores of a query, which does not change the softmax.
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
        # The variants that have a name are too deep for a test.
        ResNet(CLASSES, Size(units=(1, 2), base_width=32), head_bias_init=HEAD_BIAS),
        {"root_block": (3, 3, 32), "block1": (3, 3, 128), "block2": (2, 2, 256), "pre_logits": (256,)},
        remat_units=3,
    ),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
on_patches = pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in ROWS.items() if row.family in ("mixer", "vit")]
)
# Every kind of regularization that a row's family has, so strong that two runs never drop the same.
REGULARISED = [
    pytest.param(row.model, {option: 0.5}, id=f"{option} of {name}")
    for name, row in ROWS.items()
    for option in ("dropout", "stoch_depth")
    if option in family_options(row.family)
]


@pytest.fixture(autouse=True)
def one_implementation():
    """Trace only one implementation of each operation, which takes less than half the time. kernels/ compares all of them."""
    with for_platform("cpu"):
        yield


IMAGES = jnp.asarray(np.random.default_rng(7).uniform(-1, 1, (8, 12, 12, 3)), jnp.float32)
LABELS = np.arange(8) % CLASSES
# The laws hold at any level of optimization, and compiling is fastest at the lowest.
UNOPTIMISED = {"xla_backend_optimization_level": 0}
jit_of_model = functools.partial(jax.jit, static_argnums=0, compiler_options=UNOPTIMISED)


def shapes_of(model: nn.Module, images) -> dict:
    return param_shapes(model, images)


def random_params(model: nn.Module, images=IMAGES) -> dict:
    """Return random parameters. None has its initial value 0 or 1."""
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
    """Return (mean cross-entropy on LABELS, logits) and the gradients."""

    def loss(params):
        logits, _ = model.apply({"params": params}, IMAGES, train=True, rngs={"dropout": jax.random.key(0)})
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean(), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


def program(model: nn.Module, train: bool) -> str:
    """Return the text of the program that computes the model."""
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
def test_kernels_cast_before_the_model_takes_them_change_no_logit_and_they_are_all_that_matmuls_take(row):
    model, params = row.model.clone(dtype=jnp.bfloat16), random_params(row.model)
    dtype_of = compute_dtype(model_config(family=row.family, dtype="bfloat16"))
    cast = jax.tree_util.tree_map_with_path(lambda path, x: np.asarray(x).astype(dtype_of(path_name(path))), params)
    np.testing.assert_array_equal(apply(model, cast, IMAGES)[0], apply(model, params, IMAGES)[0])

    # The kernels of a ResNet are standardized in float32 first.
    in_float32 = r"(head|pre_logits)/.*" if row.family != "resnet" else ".*"
    kernels = {name for name in named_arrays(params) if name.endswith("/kernel") and not re.fullmatch(in_float32, name)}
    assert {name for name, x in named_arrays(cast).items() if x.dtype == jnp.bfloat16} == kernels
    assert len(kernels) > 8 or row.family == "resnet"


@every_row
def test_a_new_head_answers_its_bias_whatever_it_sees(row):
    params = initial_params(row.model)
    logits, features = apply(row.model, params, IMAGES)
    np.testing.assert_array_equal(logits, np.full((8, CLASSES), HEAD_BIAS))
    assert np.ptp(features["pre_logits"], axis=0).max() > 1e-3  # The features of the images differ.
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
    assert np.ptp(together, axis=0).min() > 1e-2  # The logits of the images differ.
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
    # The recomputation draws the same numbers again.
    options = {"stoch_depth": 0.5} if "stoch_depth" in family_options(row.family) else {}
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
    """If both branches are dropped, which has probability p squared, the output of a block is its input."""
    model = row.model.clone(size=dataclasses.replace(row.model.size, num_blocks=3), stoch_depth=0.8)
    images = jnp.tile(IMAGES[:1, :4, :4], (4096, 1, 1, 1))  # Each image has one patch.
    params = random_params(model, images)
    _, trained = apply_in_training(model, params, 0, images)
    _, evaluated = apply(model, params, images[:1])
    first, *others = (name for name in trained if re.fullmatch(r".*lock_\d", name))
    # The first block drops nothing.
    np.testing.assert_allclose(trained[first], np.tile(evaluated[first], (4096, 1, 1)), rtol=1e-4, atol=1e-5)
    unchanged = [np.all(trained[x] == trained[y], axis=(1, 2)).mean() for x, y in itertools.pairwise((first, *others))]
    assert unchanged == pytest.approx([0.4**2, 0.8**2], abs=0.03)


@every_row
def test_images_in_the_layout_of_the_host_give_what_images_give(row):
    transform = host_transform(model_config(family=row.family, variant="R50x1" if row.family == "resnet" else "S/4"))
    assert transform(IMAGES).shape == ((8, 12, 12, 3) if row.family == "resnet" else (8, 3, 3, 48))
    params = random_params(row.model)
    for a, b in zip(*(jax.tree.leaves(apply(row.model, params, images)) for images in (IMAGES, transform(IMAGES))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@on_patches
def test_an_image_that_patches_do_not_tile_is_refused(row):
    with pytest.raises(UserError, match="multiples of 4"):
        shapes_of(row.model, jnp.zeros((1, 12, 14, 3)))


@every_row
def test_without_regularisation_training_answers_as_evaluation_does(row, monkeypatch):
    """Evaluation has barriers that training lacks (mlp.py). They compute nothing, and are removed here."""
    monkeypatch.setattr(jax.lax, "optimization_barrier", lambda x: x)
    assert program(row.model, train=True) == program(row.model, train=False)


@on_patches
def test_a_platform_has_its_own_form_which_a_mesh_tells_unless_the_portable_one_is_asked_for(row):
    with for_platform(None):
        assert "platform_index" in program(row.model, train=False)
    with for_platform("portable"):
        portable = program(row.model, train=False)
    with use_mesh_in_models(make_mesh(1)):
        cpu = program(row.model, train=False)
    assert "platform_index" not in portable + cpu
    assert portable != cpu


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
