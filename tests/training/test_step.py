"""One training step: what it computes, whatever the number of parts, and that it learns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_config import get_config

from mixer_jax.checkpoints.digest import named_arrays, params_sha256
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.models.registry import make_model
from mixer_jax.parallel import make_mesh
from mixer_jax.training.program import make_program
from mixer_jax.training.step import accumulate, make_train_step

METRICS = {"loss", "learning_rate", "grad_norm", "update_norm", "param_norm", "substituted"}


def plain_step(config: ConfigDict):
    """(the step as it runs on one device, the state before the first one from parameters of which none is zero)."""
    program = make_program(config, total_steps=100, warmup_steps=config.schedule.warmup.steps)
    rng = np.random.default_rng(0)
    shapes = program.params_shapes
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(scale=0.3, size=x.shape), x.dtype), shapes)
    mesh = make_mesh(1, jax.devices()[:1])
    return jax.jit(make_train_step(program.model, program.tx, program.schedule, config, mesh)), program.new_state(params)


def small_config() -> ConfigDict:
    config = get_config()
    config.model.num_blocks = 1
    return config


def random_batch(config: ConfigDict, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    size = config.image_size
    images = rng.integers(0, 256, (config.batch_size, size, size, 3), np.uint8)
    labels = rng.integers(0, config.num_classes, (config.batch_size, 1)).astype(np.int32)
    rows = {"mask": np.ones(config.batch_size, np.float32), "substituted": (np.arange(config.batch_size) < 3).astype(np.int32)}
    return {"image": images, "labels": labels} | rows


def without_randomness(config: ConfigDict) -> ConfigDict:
    config.model.dropout = config.model.stoch_depth = config.augment.mixup = 0.0
    return config


def assert_close(actual, expected, tolerance: float) -> None:
    for name, wanted in named_arrays(expected).items():
        np.testing.assert_allclose(named_arrays(actual)[name], wanted, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def three_steps():
    """The step of the tiny config (dropout, mixup, averaging all on), and its states and metrics."""
    config = small_config()
    step, state = plain_step(config)
    states, metrics = [state], []
    for i in range(3):
        state, values = step(states[-1], random_batch(config, i))
        states.append(state)
        metrics.append(values)
    return config, step, states, metrics


def test_metrics_are_finite_float32_scalars_and_mean_what_they_say(three_steps):
    config, _, states, metrics = three_steps
    for i, values in enumerate(metrics):
        assert set(values) == METRICS
        assert all(x.shape == () and x.dtype == jnp.float32 and np.isfinite(x) for x in values.values())
        before, after = (np.concatenate([x.ravel() for x in jax.tree.leaves(s.params)]) for s in states[i : i + 2])
        assert float(values["param_norm"]) == pytest.approx(np.linalg.norm(after), rel=1e-5)
        assert float(values["update_norm"]) == pytest.approx(np.linalg.norm(after - before), rel=1e-5)
        assert float(values["learning_rate"]) == pytest.approx(config.optimizer.learning_rate * i / 3)  # warm-up of 3 steps
        assert float(values["substituted"]) == 3
    assert [int(state.step) for state in states] == [0, 1, 2, 3]


def test_the_average_follows_the_parameters_at_its_own_pace(three_steps):
    _, _, states, _ = three_steps
    for before, after in itertools.pairwise(states):
        expected = jax.tree.map(lambda ema, new: 0.9 * ema + 0.1 * new, before.ema, after.params)
        assert_close(after.ema, expected, 1e-6)
    assert params_sha256(states[-1].ema) != params_sha256(states[-1].params)


def test_the_same_state_and_batch_give_the_same_bits(three_steps):
    config, step, states, metrics = three_steps
    state, values = step(states[1], random_batch(config, 1))
    again, expected = named_arrays((state, values)), named_arrays((states[2], metrics[1]))
    assert [name for name in expected if not np.array_equal(again[name], expected[name])] == []


def test_each_step_draws_its_own_dropout_and_mixup(three_steps):
    config, step, states, _ = three_steps
    losses = {float(step(states[1].replace(step=jnp.int32(i)), random_batch(config))[1]["loss"]) for i in range(4)}
    assert len(losses) == 4


@pytest.mark.parametrize("num_parts", [1, 2, 3, 6, 12])
def test_accumulation_gives_the_loss_and_gradients_of_the_whole_batch(num_parts):
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    images, targets = (jnp.asarray(rng.normal(size=(12, width)), jnp.float32) for width in (4, 3))

    def loss(params, images, targets, key):
        return jnp.mean(jnp.sum((jnp.tanh(images @ params["w"]) - targets) ** 2, axis=1))

    whole, parts = (accumulate(jax.value_and_grad(loss), n)(params, images, targets, jax.random.key(0)) for n in (1, num_parts))
    assert_close(parts, whole, 1e-5)


def test_a_part_takes_every_nth_row_so_that_each_device_keeps_its_own():
    def spread(params, images, targets, key):
        return jnp.max(images) - jnp.min(images), {"w": jnp.max(targets) - jnp.min(targets)}

    column = jnp.arange(12.0)[:, None]
    means = accumulate(spread, 3)({}, column, column, jax.random.key(0))
    assert jax.tree.leaves(jax.tree.map(float, means)) == [9.0, 9.0]  # rows 0, 3, 6, 9 and so on


def test_parts_of_a_batch_draw_dropout_of_their_own():
    def noise(params, images, targets, key):
        return jnp.float32(0), {"w": jax.random.uniform(key, (100,))}

    zeros = jnp.zeros((64, 1))
    _, mean_of_parts = accumulate(noise, 64)({}, zeros, zeros, jax.random.key(0))
    assert np.std(mean_of_parts["w"]) < 0.1  # one draw, taken 64 times, has 0.29


def test_a_whole_step_in_parts_ends_in_the_same_state():
    ends = []
    for parts in (1, 4):
        config = without_randomness(small_config())
        config.accumulation_steps = parts
        config.schedule.warmup.steps = 0
        config.optimizer.name = "sgd"
        config.optimizer.clip_norm = 0.5
        step, state = plain_step(config)
        ends.append(step(state, random_batch(config)))
    assert_close(ends[1], ends[0], 1e-5)


def test_a_tiny_mixer_learns_eight_images_by_heart():
    config = without_randomness(small_config())
    config.batch_size = 8
    config.optimizer.weight_decay = 0.0
    step, state = plain_step(config)
    state = state.replace(params=state.params | {"head": jax.tree.map(jnp.zeros_like, state.params["head"])})
    batch = random_batch(config) | {"labels": np.arange(8, dtype=np.int32)[:, None]}
    losses = []
    for _ in range(100):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(np.log(10), rel=1e-5)  # of a head that is zero
    assert losses[-1] < 0.1

    predict = jax.jit(make_predict(make_model(config.model, config.num_classes)))
    logits, _ = predict(state.params, batch["image"])
    np.testing.assert_array_equal(np.argmax(logits, axis=1), np.arange(8))
