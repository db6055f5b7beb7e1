"""One training step: pre-training (section 3 of arXiv 2105.01601) as a pure function of the state and a batch.

Follows the paper wherever the paper is specific. The choices that it leaves open are made in losses.py (which loss), mixup.py
(one draw per batch), optimizer.py (what the weight decay multiplies, and which parameters decay), schedule.py (where the decay of
the learning rate begins and ends) and models/layers.py (stochastic depth).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Key
from ml_collections import ConfigDict

from mixer_jax.models.layers import normalize_pixels
from mixer_jax.models.registry import compute_dtype
from mixer_jax.parallel import Batch, Params, gather_params, scatter_grads, use_mesh_in_models
from mixer_jax.training.losses import k_hot, make_loss
from mixer_jax.training.mixup import mixup
from mixer_jax.training.state import TrainState, random_key

StepMetrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
# (parameters, images, targets, dropout key) -> (loss, gradients)
ValueAndGrad = Callable[
    [Params, Float[Array, "batch ..."], Float[Array, "batch classes"], Key[Array, ""]], tuple[Float[Array, ""], Params]
]


def make_train_step(
    model: nn.Module, tx: optax.GradientTransformation, schedule: optax.Schedule, config: ConfigDict, mesh: Mesh
) -> TrainStep:
    """Return the step: (state, batch) -> (next state, float32 metrics).

    A batch has "image" uint8 [B, H, W, 3], "labels" int32 [B, M], padded with -1, and "substituted" int32 [B], which is 1 where
    an image could not be decoded and another took its place. Images may already be cut into the patches that the model takes. The
    step is the same for them.

    Args:
      model: the model.
      tx: the optimizer, which includes the schedule.
      schedule: the learning rate at each step, for the metrics.
      config: the config of the run.
      mesh: the mesh over which the state and the batch are split.
    """
    example_losses = make_loss(config.loss.kind, config.loss.label_smoothing)

    def loss_fn(
        params: Params, images: Float[Array, "batch ..."], targets: Float[Array, "batch classes"], key: Key[Array, ""]
    ) -> Float[Array, ""]:
        logits, _ = model.apply({"params": params}, images, train=True, rngs={"dropout": key})
        return example_losses(logits, targets).mean()

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        mixup_key, dropout_key = (
            jax.random.fold_in(random_key(config.seed, stream), state.step) for stream in ("mixup", "dropout")
        )
        images, targets = batch["image"], k_hot(batch["labels"], config.num_classes)
        if config.augment.mixup:
            # Mix the uint8 images before normalizing: the roll then moves a quarter of the bytes between devices.
            images, targets = mixup(mixup_key, config.augment.mixup, images, targets)
        images = normalize_pixels(images)

        value_and_grad = accumulate(jax.value_and_grad(loss_fn), config.accumulation_steps)
        gathered = gather_params(state.params, mesh, compute_dtype(config.model))
        with use_mesh_in_models(mesh):
            loss, grads = value_and_grad(gathered, images, targets, dropout_key)
        grads = scatter_grads(grads, mesh)  # From here on, each device updates its own part of the state.

        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = None if state.ema is None else optax.incremental_update(params, state.ema, 1.0 - config.ema_decay)
        metrics = {
            "loss": loss,
            "learning_rate": schedule(state.step),
            "grad_norm": optax.tree.norm(grads),
            # Computed from the parameters: using `updates` makes XLA:TPU read Adam's inputs twice.
            "update_norm": optax.tree.norm(optax.tree.sub(params, state.params)),
            "param_norm": optax.tree.norm(params),
            "substituted": jnp.sum(batch["substituted"]),
        }
        metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return step


def accumulate(value_and_grad: ValueAndGrad, num_parts: int) -> ValueAndGrad:
    """Return a function that computes the same loss and gradients in `num_parts` parts of the batch, one by one, to save memory.

    The result is the mean over the parts, which all have the same size. It is summed in float32, whatever the type of one part's
    gradients is. Part i has the examples i, i + num_parts, i + 2 num_parts, ...: each device then has examples of its own in
    every part, and no example moves between devices. Dropout draws differ from those of a batch that is not split.
    """
    if num_parts == 1:
        return value_and_grad

    def accumulated(params: Params, images: Array, targets: Array, key: Array) -> tuple[Array, Params]:
        def split(x: Array) -> Array:
            return jnp.swapaxes(x.reshape(-1, num_parts, *x.shape[1:]), 0, 1)

        def add_part(total: tuple[Array, Params], part: tuple[Array, Array, Array]) -> tuple[tuple[Array, Params], None]:
            return jax.tree.map(jnp.add, total, value_and_grad(params, *part)), None

        shapes = jax.eval_shape(value_and_grad, params, images, targets, key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
        parts = (split(images), split(targets), jax.random.split(key, num_parts))
        total, _ = jax.lax.scan(add_part, zeros, parts)
        return jax.tree.map(lambda x: x / num_parts, total)

    return accumulated
