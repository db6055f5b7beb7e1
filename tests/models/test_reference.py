"""The reference of comparisons of speed is the same function as the model it is compared with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr, tree_flatten_with_path

from mixer_jax.training.program import make_program, reference_program


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_the_reference_models_logits_and_gradients_are_the_models(tiny_config, dtype, tolerance):
    tiny_config.model.update(dropout=0.0, stoch_depth=0.0, dtype=dtype)
    ours = make_program(tiny_config, total_steps=10, warmup_steps=0)
    reference = reference_program(ours)
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), jax.jit(ours.new_params)())
    images = jax.random.uniform(jax.random.key(2), (4, 8, 8, 3), minval=-1.0)

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.grad, has_aux=True)
    def gradients(params, model):
        logits, features = model.apply({"params": params}, images, train=True)
        return jnp.sum(jax.nn.log_softmax(logits)[:, 0]), (logits, features["pre_logits"])

    (mine, theirs) = (tree_flatten_with_path(gradients(params, program.model))[0] for program in (ours, reference))
    largest = {keystr(path): float(jnp.max(jnp.abs(x))) for path, x in theirs}
    for (path, x), (_, y) in zip(mine, theirs, strict=True):
        assert x.dtype == y.dtype == jnp.float32
        # The gradient of token mixing's last bias is zero (tests/models/test_mixer_equations.py), and rounding all that is left.
        like = keystr(path).replace("['token_mixing']['Dense_1']['bias']", "['token_mixing']['Dense_1']['kernel']")
        np.testing.assert_allclose(x, y, atol=tolerance * largest[like], err_msg=keystr(path))
