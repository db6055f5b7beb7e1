"""The update rule: clipping, Adam or momentum, decoupled weight decay, multipliers and freezing by parameter path."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.parallel import Params, path_name


def make_optimizer(options: ConfigDict, schedule: optax.Schedule, params: Params) -> optax.GradientTransformation:
    """Return clip -> Adam or momentum -> + weight decay -> x multiplier -> x -learning rate.

    `options` is config.optimizer; `params` gives the paths (shapes suffice).

    Weight decay. The paper (Table 4) states 0.1 with Adam at learning rate 0.001 and no formula. Read here as decoupled
    (Loshchilov & Hutter, arXiv 1711.05101) and scaled by the schedule: a step takes learning_rate x weight_decay x parameter
    away, 1e-4 at that peak. That is what the authors' released configuration amounts to (big_vision's `wd = 1e-4`, multiplied not
    by the learning rate but by the schedule's shape), kernels alone included, which is our default `weight_decay_pattern`.

    Parameters with multiplier 0 are frozen: no update, no decay, no optimizer state, and no share in the clipped norm.
    Raises UserError for a pattern that matches no parameter.
    """
    _refuse_unmatched(options, params)

    def factor(name: str) -> float:
        return next((float(factor) for pattern, factor in options.multipliers if re.fullmatch(pattern, name)), 1.0)

    def decays(name: str) -> bool:
        return re.fullmatch(options.weight_decay_pattern, name) is not None

    chain = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    if options.name == "adam":
        chain.append(optax.scale_by_adam(options.b1, options.b2, options.eps, mu_dtype=options.momentum_dtype))
    else:
        chain.append(optax.trace(options.momentum, accumulator_dtype=options.momentum_dtype))
    if options.weight_decay:
        chain.append(optax.add_decayed_weights(options.weight_decay, mask=lambda tree: _map_names(decays, tree)))
    if options.multipliers:
        chain.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, _map_names(factor, updates))))
    chain.append(optax.scale_by_learning_rate(schedule))
    trained = optax.chain(*chain)
    labels = _map_names(lambda name: "trained" if factor(name) > 0 else "frozen", params)
    if "frozen" not in jax.tree.leaves(labels):
        return trained
    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def _refuse_unmatched(options: ConfigDict, params: Params) -> None:
    names = jax.tree.leaves(_map_names(lambda name: name, params))
    patterns = [pattern for pattern, _ in options.multipliers]
    patterns += [options.weight_decay_pattern] if options.weight_decay else []
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise UserError(f"config.optimizer: the pattern {pattern!r} matches no parameter. A path is like {names[0]}.")


def _map_names(function: Callable[[str], Any], tree: Any) -> Any:
    """Return `function` of each parameter's path, in a tree like `tree` (which may have gaps where parameters are frozen)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: function(path_name(path)), tree)
