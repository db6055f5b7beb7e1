"""The update rule against its formula in NumPy, and what patterns of parameter paths do to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.training.optimizer import make_optimizer

LEARNING_RATES = (0.1, 0.05, 0.2)  # of three steps

# One row a rule: what it changes in the config.
RULES = {
    "adam": {},
    "adam without clipping": {"clip_norm": 0.0},
    "adam, clipped hard": {"clip_norm": 1e-2, "eps": 1e-3},
    "adam with decay": {"weight_decay": 0.3},
    "adam, other moments, decay of all": {"b1": 0.5, "b2": 0.9, "weight_decay": 0.3, "weight_decay_pattern": ".*"},
    "adam, multipliers": {"weight_decay": 0.3, "multipliers": ((".*/token_mixing/.*", 0.1), ("block/.*", 3.0))},
    "sgd": {"name": "sgd"},
    "sgd without momentum": {"name": "sgd", "momentum": 0.0, "clip_norm": 0.0},
    "sgd with all": {"name": "sgd", "momentum": 0.5, "weight_decay": 0.3, "multipliers": (("head/.*", 10.0),)},
    "sgd, head alone": {"name": "sgd", "weight_decay": 0.3, "multipliers": (("head/kernel", 2.0), ("block/.*", 0.0))},
}
FREEZING = {"weight_decay": 0.3, "multipliers": (("block/.*", 0.0),)}


def random_tree(seed: int) -> dict:
    """As parameters, or as their gradients."""
    rng = np.random.default_rng(seed)
    dense = {"kernel": (3, 4), "bias": (4,)}
    shapes = {"block": {"token_mixing": dense, "channel_mixing": {"kernel": (5, 2)}}, "head": dense}
    return jax.tree.map(lambda shape: rng.normal(size=shape).astype(np.float32), shapes, is_leaf=lambda x: isinstance(x, tuple))


def optimizer_config(**changes) -> ConfigDict:
    config = default_config().optimizer
    config.update(changes)
    return config


def schedule(step):
    return jnp.asarray(LEARNING_RATES)[step]


def run(config: ConfigDict, params: dict, all_grads: list[dict]):
    """The parameters after each step, the last state of the optimiser, and the updates of each step."""
    tx = make_optimizer(config, schedule, params)
    update = jax.jit(tx.update)
    state, trajectory, all_updates = tx.init(params), [], []
    for grads in all_grads:
        updates, state = update(grads, state, params)
        params = jax.tree.map(np.add, params, updates)
        trajectory.append(params)
        all_updates.append(updates)
    return trajectory, state, all_updates


def steps_by_formula(config: ConfigDict, params: dict, all_grads: list[dict], decays, factor):
    """p <- p - lr x factor x (direction + wd x p), per parameter, in float64; the direction is Adam's or momentum's."""
    p = {name: np.float64(x) for name, x in named_arrays(params).items()}
    m, v = ({name: np.zeros_like(x) for name, x in p.items()} for _ in range(2))
    for t, (lr, grads) in enumerate(zip(LEARNING_RATES, all_grads, strict=True), start=1):
        g = {name: np.float64(x) for name, x in named_arrays(grads).items() if factor(name)}
        norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        for name, x in g.items():
            if config.clip_norm:
                x = x * min(1.0, config.clip_norm / norm)
            if config.name == "adam":
                m[name] = config.b1 * m[name] + (1 - config.b1) * x
                v[name] = config.b2 * v[name] + (1 - config.b2) * x**2
                direction = m[name] / (1 - config.b1**t) / (np.sqrt(v[name] / (1 - config.b2**t)) + config.eps)
            else:
                m[name] = config.momentum * m[name] + x
                direction = m[name]
            decay = config.weight_decay * p[name] if decays(name) else 0.0
            p[name] = p[name] - lr * factor(name) * (direction + decay)
    return p


@pytest.mark.parametrize("rule", RULES)
def test_three_steps_are_those_of_the_formula(rule):
    config, params, all_grads = optimizer_config(**RULES[rule]), random_tree(0), [random_tree(i) for i in (1, 2, 3)]
    factors = {  # by hand, for the names of random_tree
        "adam, multipliers": lambda name: 0.1 if "token_mixing" in name else 1.0 if "head" in name else 3.0,
        "sgd with all": lambda name: 10.0 if "head" in name else 1.0,
        "sgd, head alone": lambda name: {"head/kernel": 2.0, "head/bias": 1.0}.get(name, 0.0),
    }
    decays_all = "decay of all" in rule
    expected = steps_by_formula(
        config,
        params,
        all_grads,
        decays=lambda name: decays_all or name.endswith("kernel"),
        factor=factors.get(rule, lambda name: 1.0),
    )
    actual = named_arrays(run(config, params, all_grads)[0][-1])
    for name, wanted in expected.items():
        np.testing.assert_allclose(actual[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_gradients_below_the_norm_are_left_alone():
    params, grads = random_tree(0), jax.tree.map(lambda x: x * 1e-3, random_tree(1))
    rule = {"name": "sgd"}
    clipped, free = (run(optimizer_config(clip_norm=c, **rule), params, [grads])[2][0] for c in (1.0, 0.0))
    for a, b in zip(jax.tree.leaves(clipped), jax.tree.leaves(free), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_moment_is_stored_as_asked_and_everything_else_in_float32(name, dtype):
    params = random_tree(0)
    _, state, updates = run(optimizer_config(name=name, momentum_dtype=dtype), params, [random_tree(1)])
    dtypes = {path: x.dtype.name for path, x in named_arrays(state).items() if x.shape}
    moments = {path: kind for path, kind in dtypes.items() if "/mu/" in path or "/trace/" in path}
    assert len(moments) == len(jax.tree.leaves(params))
    assert set(moments.values()) == {dtype}
    assert {kind for path, kind in dtypes.items() if path not in moments} <= {"float32"}
    assert {x.dtype.name for x in jax.tree.leaves(updates)} == {"float32"}


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_frozen_parameter_stays_bit_for_bit_takes_no_state_and_no_share_in_the_clipped_norm(name):
    config, params = optimizer_config(name=name, **FREEZING), random_tree(0)
    calm = [random_tree(i) for i in (1, 2, 3)]
    wild = [grads | {"block": jax.tree.map(lambda x: 1e6 * x, grads["block"])} for grads in calm]
    (*_, last), state, _ = run(config, params, calm)
    (*_, last_of_wild), _, _ = run(config, params, wild)

    for before, after in zip(jax.tree.leaves(params["block"]), jax.tree.leaves(last["block"]), strict=True):
        np.testing.assert_array_equal(before, after)
    moving = [np.any(a != b) for a, b in zip(jax.tree.leaves(params["head"]), jax.tree.leaves(last["head"]), strict=True)]
    assert all(moving)
    assert not [path for path in named_arrays(state) if "block" in path]
    assert [path for path in named_arrays(state) if "head" in path]
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(last_of_wild), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_multiplier_scales_the_update_of_what_it_matches_first(name):
    params, grads = random_tree(0), random_tree(1)
    rows = (("block/token_mixing/.*", 0.5), ("block/.*", 4.0))
    plain, scaled = (
        named_arrays(run(optimizer_config(name=name, weight_decay=0.3, multipliers=m), params, [grads])[2][0]) for m in ((), rows)
    )
    for path, update in plain.items():
        factor = 0.5 if "token_mixing" in path else 4.0 if "block" in path else 1.0
        np.testing.assert_allclose(scaled[path], factor * update, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"multipliers": (("heads/.*", 0.0),)}, "heads/"),
        ({"multipliers": (("head", 0.0),)}, "head"),  # a pattern is of the whole path
        ({"multipliers": (("head/.*", 1.0), ("Head/.*", 0.0))}, "Head/"),
        ({"weight_decay": 0.1, "weight_decay_pattern": "kernel"}, "kernel"),
    ],
)
def test_a_pattern_that_matches_no_parameter_is_refused_with_a_path_as_example(changes, pattern):
    with pytest.raises(UserError, match=rf"'{pattern}.*matches no parameter.*block/channel_mixing/kernel"):
        make_optimizer(optimizer_config(**changes), schedule, random_tree(0))


def test_without_weight_decay_its_pattern_need_not_match():
    make_optimizer(optimizer_config(weight_decay_pattern="nothing"), schedule, random_tree(0))
