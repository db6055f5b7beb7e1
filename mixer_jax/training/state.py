"""What a run carries from step to step, its random streams, and how it is first made."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array
from jaxtyping import Int, Key

from mixer_jax.errors import UserError
from mixer_jax.models.registry import random_params
from mixer_jax.parallel import Params


@struct.dataclass
class TrainState:
    """Everything a step changes. Split over the mesh by parallel.state_sharding.

    step: the steps done. ema: the average of the parameters, or None. opt_state: the optimizer's.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params | None
    opt_state: optax.OptState

    @property
    def eval_params(self) -> Params:
        """Return the parameters that evaluators take."""
        return self.params if self.ema is None else self.ema


def random_key(seed: int, stream: str) -> Key[Array, ""]:
    """Return the key of a named random stream ("init", "mixup", "dropout"): streams are independent of each other."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))


def init_params(model: nn.Module, image_size: int, seed: int) -> Params:
    """Return random parameters in float32. Under jax.eval_shape, their shapes at no cost.

    Raises UserError for an image size that the model does not take.
    """
    images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    try:
        return random_params(model, images, random_key(seed, "init"))
    except UserError as error:
        raise UserError(f"config.image_size is {image_size}. {error}") from error


def init_state(params: Params, tx: optax.GradientTransformation, ema_decay: float) -> TrainState:
    """Return the state before the first step."""
    ema = jax.tree.map(jnp.copy, params) if ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, ema=ema, opt_state=tx.init(params))


def to_items(state: TrainState) -> dict[str, Any]:
    """Return the state as a checkpoint's items, so that parameters can be read without the optimizer's state."""
    items = {"params": state.params, "optimizer": {"step": state.step, "opt_state": state.opt_state}}
    return items if state.ema is None else items | {"ema": state.ema}


def from_items(items: dict[str, Any]) -> TrainState:
    """Return the state that `to_items` made `items` of."""
    return TrainState(params=items["params"], ema=items.get("ema"), **items["optimizer"])
