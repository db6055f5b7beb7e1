"""The optimizer: clipping, Adam or momentum, decoupled weight decay, and multipliers by parameter path."""

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
    """Return the optimizer, which applies in this order: clipping, Adam or momentum, weight decay, multipliers, learning rate.

    Weight decay: the paper (Table 4) states 0.1, with Adam at a learning rate of 0.001, and gives no formula. Here it is
    decoupled (Loshchilov & Hutter, arXiv 1711.05101) and scaled by the schedule: a step subtracts learning_rate x weight_decay x
    parameter, which is 1e-4 x parameter at the paper's peak. The authors' released configuration has the same effect:
    big_vision's `wd = 1e-4` is multiplied by the shape of the schedule and not by the learning rate. There, as in our default of
    `weight_decay_pattern`, only kernels decay.

    A parameter whose multiplier is 0 is frozen: it has no update, no decay and no optimizer state, and its gradient does not
    count in the norm that is clipped.

    Args:
      options: config.optimizer.
      schedule: the learning rate at each step.
      params: the parameters, or their shapes. Only their paths are used.

    Raises:
      UserError: a pattern in the options matches no parameter.
    """
    _refuse_unmatched(options, params)

    def multiplier(name: str) -> float:
        return next((float(factor) for pattern, factor in options.multipliers if re.fullmatch(pattern, name)), 1.0)

    def is_decayed(name: str) -> bool:
        return re.fullmatch(options.weight_decay_pattern, name) is not None

    transforms = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    if options.name == "adam":
        transforms.append(optax.scale_by_adam(options.b1, options.b2, options.eps, mu_dtype=options.momentum_dtype))
    else:
        transforms.append(optax.trace(options.momentum, accumulator_dtype=options.momentum_dtype))
    if options.weight_decay:
        transforms.append(optax.add_decayed_weights(options.weight_decay, mask=lambda tree: _map_names(is_decayed, tree)))
    if options.multipliers:
        transforms.append(
            optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, _map_names(multiplier, updates)))
        )
    transforms.append(optax.scale_by_learning_rate(schedule))
    trained = optax.chain(*transforms)
    labels = _map_names(lambda name: "trained" if multiplier(name) > 0 else "frozen", params)
    if "frozen" not in jax.tree.leaves(labels):
        return trained
    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def _refuse_unmatched(options: ConfigDict, params: Params) -> None:
    """Raise UserError for a pattern that matches no parameter."""
    names = jax.tree.leaves(_map_names(lambda name: name, params))
    patterns = [pattern for pattern, _ in options.multipliers]
    patterns += [options.weight_decay_pattern] if options.weight_decay else []
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise UserError(f"config.optimizer: the pattern {pattern!r} matches no parameter. A path is like {names[0]}.")


def _map_names(function: Callable[[str], Any], tree: Any) -> Any:
    """Return a tree like `tree` with `function(path)` for each parameter. `tree` may lack the parameters that are frozen."""
    return jax.tree_util.tree_map_with_path(lambda path, _: function(path_name(path)), tree)
