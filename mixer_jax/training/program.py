"""Everything that a config makes devices compute, as one object: the model, the optimizer, the state and the compiled step.

Training runs it. The speed measurements and the planner compile the same object. Making it allocates no array and uses no device.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.models.mixer import Mixer
from mixer_jax.models.reference import ReferenceMixer
from mixer_jax.models.registry import host_transform, make_model
from mixer_jax.parallel import STATE_AXES, Params, batch_sharding, replicated, state_sharding
from mixer_jax.training.optimizer import make_optimizer
from mixer_jax.training.schedule import make_schedule
from mixer_jax.training.state import TrainState, init_params, init_state
from mixer_jax.training.step import TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that a config makes devices compute.

    Attributes:
      config: the config.
      model: the model.
      host_transform: the function that the host applies to an image before a device gets it. For models that begin with patches,
        it cuts the image into patches.
      schedule: the learning rate at each step.
      tx: the optimizer.
      new_params: a function that returns random parameters.
      new_state: a function from parameters to the state before the first step.
      params_shapes: the shapes and dtypes of the parameters. They are kept here because a deep model takes seconds to trace.
    """

    config: ConfigDict
    model: nn.Module
    host_transform: Callable[[np.ndarray], np.ndarray]
    schedule: optax.Schedule
    tx: optax.GradientTransformation
    new_params: Callable[[], Params]
    new_state: Callable[[Params], TrainState]
    params_shapes: Params

    def image_shapes(self, mesh: Mesh) -> jax.ShapeDtypeStruct:
        """Return the shape and sharding of a global batch of images, uint8, after `host_transform`."""
        side = self.config.image_size
        shape = self.host_transform(np.empty((side, side, 3), np.uint8)).shape
        return jax.ShapeDtypeStruct((self.config.batch_size, *shape), jnp.uint8, sharding=batch_sharding(mesh))

    def state_shapes(self, mesh: Mesh, axes: tuple[str, ...] = STATE_AXES) -> TrainState:
        """Return the shapes, dtypes and shardings of the state, if it is split along `axes` of the mesh."""
        shapes = jax.eval_shape(self.new_state, self.params_shapes)
        shardings = state_sharding(shapes, mesh, axes)
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)

    def init_params(self, mesh: Mesh) -> Params:
        """Return random parameters. Each device makes its own part."""
        return jax.jit(self.new_params, out_shardings=_shardings(self.state_shapes(mesh).params))()

    def init_state(self, mesh: Mesh, params: Params) -> TrainState:
        """Return the state before the first step. The parameters are donated: the state takes over their memory."""
        return jax.jit(self.new_state, out_shardings=_shardings(self.state_shapes(mesh)), donate_argnums=0)(params)

    def compile_step(self, mesh: Mesh, max_labels: int) -> tuple[TrainStep, float]:
        """Return the training step, compiled for the mesh, and the number of floating-point operations of one step on one device.

        This number is the compiler's count, so it includes what remat computes twice. XLA counts a loop body once, so with
        accumulation the count is multiplied by the number of parts.

        Args:
          mesh: the mesh on which the step will run.
          max_labels: M, the number of labels for which a batch has room per example.

        Raises:
          UserError: the parts of an accumulated batch cannot be split evenly over the devices.
        """
        compiled = self.lower_step(mesh, max_labels).compile()
        analysis = compiled.cost_analysis()
        assert analysis is not None, "the compilers for CPU, GPU and TPU all count operations"
        return compiled, analysis["flops"] * self.config.accumulation_steps

    def lower_step(self, mesh: Mesh, max_labels: int) -> jax.stages.Lowered:
        """Return the training step, traced and lowered for the mesh, with the arguments of `compile_step`.

        The old state is donated: the new state takes over its memory. Raises UserError as `compile_step` does.
        """
        config, shapes = self.config, self.state_shapes(mesh)
        if config.batch_size // config.accumulation_steps % mesh.size:
            raise UserError(
                f"config.accumulation_steps is {config.accumulation_steps}: each part of a batch of {config.batch_size} must "
                f"have a multiple of {mesh.size} images, one or more for each device."
            )
        split = functools.partial(jax.ShapeDtypeStruct, sharding=batch_sharding(mesh))
        batch = {
            "image": self.image_shapes(mesh),
            "labels": split((config.batch_size, max_labels), jnp.int32),
            "mask": split((config.batch_size,), jnp.float32),
            "substituted": split((config.batch_size,), jnp.int32),
        }
        step = make_train_step(self.model, self.tx, self.schedule, config, mesh)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(_shardings(shapes), replicated(mesh)))
        return jitted.lower(shapes, batch)


def make_program(config: ConfigDict, total_steps: int, warmup_steps: int) -> Program:
    """Return the program of a config.

    Args:
      config: the config.
      total_steps: the length of the run, where the decay of the learning rate ends.
      warmup_steps: the length of the warm-up.

    Raises:
      UserError: the model does not exist or does not take the image size, or a pattern of the optimizer matches no parameter.
    """
    model = make_model(config.model, config.num_classes)
    new_params = functools.partial(init_params, model, config.image_size, config.seed)
    schedule = make_schedule(config.schedule, config.optimizer.learning_rate, total_steps, warmup_steps)
    params_shapes = jax.eval_shape(new_params)
    tx = make_optimizer(config.optimizer, schedule, params_shapes)
    new_state = functools.partial(init_state, tx=tx, ema_decay=config.ema_decay)
    return Program(config, model, host_transform(config.model), schedule, tx, new_params, new_state, params_shapes)


def reference_program(program: Program) -> Program:
    """Return the same program with the reference model.

    It has no dropout, no stochastic depth, no `tile_size` and no permutation.
    """
    model = program.model
    assert isinstance(model, Mixer) and model.num_classes is not None
    reference = ReferenceMixer(model.num_classes, model.patch_size, **dataclasses.asdict(model.size), dtype=model.dtype)
    return dataclasses.replace(program, model=reference, host_transform=lambda image: image)


def _shardings(shapes: Any) -> Any:
    """Return the shardings in a tree of shapes."""
    return jax.tree.map(lambda shape: shape.sharding, shapes)
