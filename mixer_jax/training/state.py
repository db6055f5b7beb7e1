"""The state that a run carries from step to step, its initialization, and the run's random streams."""

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
    """Everything that a step changes. Its arrays are split over the mesh.

    Attributes:
      step: the number of steps done.
      params: the parameters, in float32.
      ema: the exponential moving average of the parameters, or None if the run has none.
      opt_state: the state of the optimizer.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params | None
    opt_state: optax.OptState

    @property
    def eval_params(self) -> Params:
        """Return the parameters to evaluate: the average if the run has one, or else the parameters themselves."""
        return self.params if self.ema is None else self.ema


def random_key(seed: int, stream: str) -> Key[Array, ""]:
    """Return the key of a named random stream ("init", "mixup", "dropout"). The streams are independent of each other."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))


def init_params(model: nn.Module, image_size: int, seed: int) -> Params:
    """Return random parameters in float32, for images of `image_size` x `image_size` pixels.

    Raises UserError if the model does not take this image size.
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
    """Return the items of a checkpoint of this state. A reader can read "params" or "ema" without the optimizer's state."""
    items = {"params": state.params, "optimizer": {"step": state.step, "opt_state": state.opt_state}}
    return items if state.ema is None else items | {"ema": state.ema}


def from_items(items: dict[str, Any]) -> TrainState:
    """Return the state from the items of a checkpoint: the inverse of `to_items`."""
    return TrainState(params=items["params"], ema=items.get("ema"), **items["optimizer"])
