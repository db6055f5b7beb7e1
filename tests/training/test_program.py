"""The program of a run on any mesh: the same parameters and the same step, each array in its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mixer_jax.checkpoints.digest import named_arrays, params_sha256
from mixer_jax.parallel import make_mesh, to_global
from mixer_jax.training.program import Program, make_program
from mixer_jax.training.step import make_train_step


@pytest.fixture
def program(tiny_config: ConfigDict) -> Program:
    """Of one block, without the randomness that depends on where it is drawn."""
    tiny_config.model.num_blocks = 1
    tiny_config.model.dropout = tiny_config.augment.mixup = 0.0
    tiny_config.optimizer.name = "sgd"
    return make_program(tiny_config, total_steps=30, warmup_steps=0)


def places(tree) -> dict:
    return {name: (x.shape, x.dtype, x.sharding.spec) for name, x in named_arrays(tree).items()}


def test_parameters_are_the_same_on_any_mesh(program):
    one, many = (params_sha256(program.init_params(mesh)) for mesh in (make_mesh(1, jax.devices()[:1]), make_mesh(4)))
    assert one == many


def test_a_step_on_a_mesh_is_the_plain_function_and_keeps_every_array_in_its_place(program):
    config, mesh, rng = program.config, make_mesh(4), np.random.default_rng(0)
    new = jax.tree.map(lambda x: rng.normal(scale=0.3, size=x.shape).astype(np.float32), program.params_shapes)
    batch = {
        "image": program.host_transform(rng.integers(0, 256, (config.batch_size, 8, 8, 3), np.uint8)),
        "labels": rng.integers(0, 10, (config.batch_size, 1)).astype(np.int32),
        "mask": np.ones(config.batch_size, np.float32),
        "substituted": np.zeros(config.batch_size, np.int32),
    }
    plain = jax.jit(make_train_step(program.model, program.tx, program.schedule, config, make_mesh(1, jax.devices()[:1])))
    expected = plain(program.new_state(jax.tree.map(jnp.asarray, new)), batch)

    shapes = program.state_shapes(mesh)
    params = jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), new, shapes.params)
    state = program.init_state(mesh, params)
    assert places(state) == places(shapes)
    step, flops = program.compile_step(mesh, max_labels=1)
    actual = step(state, to_global(batch, mesh))

    assert places(actual[0]) == places(shapes)
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))  # their memory was given to the new state
    for name, wanted in named_arrays(expected).items():
        np.testing.assert_allclose(named_arrays(actual)[name], wanted, rtol=1e-5, atol=1e-5, err_msg=name)
    matrix_products = 3 * 2 * config.batch_size / 8 * 16 * (12 * 16 + 2 * 8 * 16 + 2 * 32 * 16)  # stem, token and channel mixing
    assert matrix_products / 2 < flops < matrix_products * 10
