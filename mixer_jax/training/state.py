"""What a run carries from step to step, its random streams, and how it is first made."""

import zlib

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


@flax.struct.dataclass
class TrainState:
    """Everything a step changes. Split over the mesh by parallel.state_sharding.

    step: int32 [], steps done. params: float32 tree. ema: their average, or None. opt_state: the optimiser's.
    """

    step: jax.Array
    params: dict
    ema: dict | None
    opt_state: optax.OptState

    @property
    def eval_params(self) -> dict:
        return self.params if self.ema is None else self.ema


def random_key(seed: int, stream: str) -> jax.Array:
    """The key of a named random stream ("init", "mixup", "dropout"): streams are independent of each other."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))


def init_params(model: nn.Module, image_size: int, seed: int) -> dict:
    """Random parameters in float32. Under jax.eval_shape, their shapes at no cost."""
    images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    return model.init(random_key(seed, "init"), images)["params"]


def init_state(params: dict, tx: optax.GradientTransformation, ema_decay: float) -> TrainState:
    """The state before the first step."""
    ema = jax.tree.map(jnp.copy, params) if ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, ema=ema, opt_state=tx.init(params))


def to_items(state: TrainState) -> dict:
    """The state as a checkpoint's items, so that parameters can be read without the optimiser's state."""
    items = {"params": state.params, "optimizer": {"step": state.step, "opt_state": state.opt_state}}
    return items if state.ema is None else items | {"ema": state.ema}


def from_items(items: dict) -> TrainState:
    """The inverse of `to_items`."""
    return TrainState(params=items["params"], ema=items.get("ema"), **items["optimizer"])
