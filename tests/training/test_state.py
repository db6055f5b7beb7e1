"""The state of a run: its random streams, its first value, and its form on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.training.program import Program, make_program
from mixer_jax.training.state import from_items, random_key, to_items


@pytest.fixture(params=[0.0, 0.9], ids=["without average", "with average"])
def program(request, tiny_config: ConfigDict) -> Program:
    tiny_config.ema_decay = request.param
    return make_program(tiny_config, total_steps=10, warmup_steps=0)


def test_an_image_size_that_patches_do_not_tile_is_refused_by_the_name_of_its_option(tiny_config: ConfigDict):
    tiny_config.image_size = 9
    with pytest.raises(UserError, match=r"config.image_size is 9.*multiples of 2"):
        make_program(tiny_config, total_steps=10, warmup_steps=0)


def test_every_seed_and_stream_has_randomness_of_its_own():
    keys = [random_key(seed, stream) for seed in (0, 1, 2) for stream in ("init", "mixup", "dropout")]
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in keys}) == 9


def test_a_state_comes_back_from_its_items_as_it_was(program):
    state = jax.eval_shape(program.new_state, program.params_shapes)
    items = to_items(state)
    assert set(items) == {"params", "optimizer"} | ({"ema"} if program.config.ema_decay else set())
    assert from_items(items) == state


def test_the_first_state_is_at_step_0_and_its_average_is_a_copy_of_the_parameters(program):
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.5), program.params_shapes)
    state = program.new_state(params)
    averaged = program.config.ema_decay > 0
    assert (state.step, state.step.dtype) == (0, jnp.int32)
    assert (state.ema is not None) == averaged
    assert state.eval_params is (state.ema if averaged else state.params)
    for average, param in zip(jax.tree.leaves(state.eval_params), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(average, param)
        assert (average is not param) == averaged
