"""The reference of comparisons of speed is the same function as the model it is compared with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.benchmark.textbook import textbook
from mixer_jax.training.program import make_program


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_the_textbooks_logits_and_gradients_are_the_models(tiny_config, dtype, tolerance):
    tiny_config.model.update(dropout=0.0, stoch_depth=0.0, dtype=dtype)
    ours = make_program(tiny_config, total_steps=10, warmup_steps=0)
    reference = textbook(ours)
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), jax.jit(ours.new_params)())
    images = jax.random.uniform(jax.random.key(2), (4, 8, 8, 3), minval=-1.0)

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.grad, has_aux=True)
    def gradients(params, model):
        logits, features = model.apply({"params": params}, images, train=True)
        return jnp.sum(jax.nn.log_softmax(logits)[:, 0]), (logits, features["pre_logits"])

    results = [jax.tree.leaves(gradients(params, program.model)) for program in (ours, reference)]
    largest = max(jnp.max(jnp.abs(x)) for x in results[1])
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype == theirs.dtype == jnp.float32
        # The bias that ends token mixing is one number for all channels, which the norm after it takes away: its gradient is
        # rounding, and nothing to compare with.
        scale = jnp.maximum(jnp.max(jnp.abs(theirs)), largest / 50)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * float(scale))
