"""The update rule: clipping, Adam or momentum, decoupled weight decay, multipliers and freezing by parameter path."""

import re

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.parallel import path_name


def make_optimizer(config: ConfigDict, schedule: optax.Schedule, params) -> optax.GradientTransformation:
    """clip -> Adam or momentum -> + weight decay -> x multiplier -> x -learning rate. `params` gives the paths (shapes suffice).

    Weight decay. The paper (Table 4) states 0.1 with Adam at learning rate 0.001 and no formula. Read here as decoupled
    (Loshchilov & Hutter, arXiv 1711.05101) and scaled by the schedule: a step takes learning_rate x weight_decay x parameter
    away, 1e-4 at that peak. That is what the authors' released configuration amounts to (big_vision's `wd = 1e-4`, multiplied not
    by the learning rate but by the schedule's shape), kernels alone included, which is our default `weight_decay_pattern`.

    Parameters with multiplier 0 are frozen: no update, no decay, no optimiser state, and no share in the clipped norm.
    Raises UserError for a pattern that matches no parameter.
    """
    _refuse_unmatched(config, params)

    def factor(name: str) -> float:
        return next((float(factor) for pattern, factor in config.multipliers if re.fullmatch(pattern, name)), 1.0)

    def decays(name: str) -> bool:
        return re.fullmatch(config.weight_decay_pattern, name) is not None

    chain = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.name == "adam":
        chain.append(optax.scale_by_adam(config.b1, config.b2, config.eps, mu_dtype=config.momentum_dtype))
    else:
        chain.append(optax.trace(config.momentum, accumulator_dtype=config.momentum_dtype))
    if config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, mask=lambda tree: _map_names(decays, tree)))
    if config.multipliers:
        chain.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, _map_names(factor, updates))))
    chain.append(optax.scale_by_learning_rate(schedule))
    trained = optax.chain(*chain)
    labels = _map_names(lambda name: "trained" if factor(name) > 0 else "frozen", params)
    if "frozen" not in jax.tree.leaves(labels):
        return trained
    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def _refuse_unmatched(config: ConfigDict, params) -> None:
    names = jax.tree.leaves(_map_names(lambda name: name, params))
    patterns = [pattern for pattern, _ in config.multipliers]
    patterns += [config.weight_decay_pattern] if config.weight_decay else []
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise UserError(f"config.optimizer: the pattern {pattern!r} matches no parameter. A path is like {names[0]}.")


def _map_names(function, tree):
    """`function` of each parameter's path, in a tree like `tree` (which may have gaps where parameters are frozen)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: function(path_name(path)), tree)
