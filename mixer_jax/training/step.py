"""One training step: the method section of the paper (3, Pre-training) as a pure function of state and batch.

Where it differs from the paper: nothing that the paper states. What the paper leaves open is decided in losses.py (which loss),
mixup.py (one draw a batch), optimizer.py (which parameters decay), models/layers.py (stochastic depth) and schedule.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax.models.layers import normalize_pixels
from mixer_jax.models.registry import compute_dtype
from mixer_jax.parallel import gather_params, scatter_grads, use_mesh_in_models
from mixer_jax.training.losses import k_hot, make_loss
from mixer_jax.training.mixup import mixup
from mixer_jax.training.state import TrainState, random_key

StepMetrics = dict[str, jax.Array]


def make_train_step(
    model: nn.Module, tx: optax.GradientTransformation, schedule: optax.Schedule, config: ConfigDict, mesh: Mesh
) -> Callable[[TrainState, dict], tuple[TrainState, StepMetrics]]:
    """(state, batch of uint8 image [B, H, W, 3], int32 labels [B, M] and substituted [B]) -> (next state, float32 metrics).

    Images may be in another layout of their pixels, which the model takes (registry.host_transform): nothing here depends on it.
    """
    loss_of = make_loss(config.loss.kind, config.loss.label_smoothing)

    def loss_fn(params: dict, images: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
        logits, _ = model.apply({"params": params}, images, train=True, rngs={"dropout": key})
        return loss_of(logits, targets).mean()

    def step(state: TrainState, batch: dict) -> tuple[TrainState, StepMetrics]:
        mixup_key, dropout_key = (jax.random.fold_in(random_key(config.seed, s), state.step) for s in ("mixup", "dropout"))
        images, targets = batch["image"], k_hot(batch["labels"], config.num_classes)
        if config.augment.mixup:  # of bytes: the neighbour's row is copied at a quarter of float32's size
            images, targets = mixup(mixup_key, config.augment.mixup, images, targets)
        images = normalize_pixels(images)

        value_and_grad = accumulate(jax.value_and_grad(loss_fn), config.accumulation_steps)
        whole = gather_params(state.params, mesh, compute_dtype(config.model))
        with use_mesh_in_models(mesh):
            loss, grads = value_and_grad(whole, images, targets, dropout_key)
        grads = scatter_grads(grads, mesh)  # and each device updates its part of the state

        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1.0 - config.ema_decay) if config.ema_decay else None
        metrics = {
            "loss": loss,
            "learning_rate": schedule(state.step),
            "grad_norm": optax.tree.norm(grads),
            # Of the change itself: from `updates`, the TPU compiler would go twice through all that Adam reads.
            "update_norm": optax.tree.norm(optax.tree.sub(params, state.params)),
            "param_norm": optax.tree.norm(params),
            "substituted": jnp.sum(batch["substituted"]),
        }
        metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return step


def accumulate(value_and_grad: Callable, num_parts: int) -> Callable:
    """The same (loss, gradients), computed over `num_parts` slices of the batch one after the other, to save memory.

    The sums are float32, whatever the gradients of one part are. Part i takes rows i, i + num_parts, ...: every device keeps its
    own rows, and nothing moves between them.
    """
    if num_parts == 1:
        return value_and_grad

    def accumulated(params, images, targets, key):
        def slices(x):
            return jnp.swapaxes(x.reshape(-1, num_parts, *x.shape[1:]), 0, 1)

        def add_part(total, part):
            return jax.tree.map(jnp.add, total, value_and_grad(params, *part)), None

        shapes = jax.eval_shape(value_and_grad, params, images, targets, key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
        parts = (slices(images), slices(targets), jax.random.split(key, num_parts))
        total, _ = jax.lax.scan(add_part, zeros, parts)
        return jax.tree.map(lambda x: x / num_parts, total)

    return accumulated
