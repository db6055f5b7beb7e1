"""Estimates the memory of a training step on a device, and its operations, without a compiler: from the shapes of its arrays.

What is counted, for D devices and batches of B images in `a` parts:

    state          parameters, optimizer and averaged parameters: float32 or as configured, a D-th of them on each device
    kernels        a copy of the parameters in the type in which the model uses them, whole, and what the forward pass makes of
                   them alone and keeps: the standardized kernels of a ResNet
    gradients      those of a part, in the same type, and, if a is above 1, the sums over the parts in float32
    batch          B / D images: their bytes, a second copy with mixup, targets, and, if a is above 1, float32 pixels
    activations    for B / (D a) images: every array that the forward pass keeps for the backward pass. With model.remat these are
                   the inputs of the blocks, and all arrays of one block.

That parallel.fsdp splits kernels is not counted. Compilers keep fewer arrays than are counted, because they compute some of them
again, and because gradients take the place of activations that have been used. Nor do they store the zeros that dropout and ReLU
select. These are counted: without them, the estimate of R152x1 is 0.92 times what the TPU compiler reports. A test compares the
estimates with such reports, and FACTOR is the largest ratio that it allows. If a program would not fit, the compiler computes
more arrays again until it does: its ratio is larger.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mixer_jax.models.kernels import for_platform
from mixer_jax.models.registry import compute_dtype
from mixer_jax.parallel import path_name
from mixer_jax.planning.estimate import BLOCK
from mixer_jax.training.losses import make_loss
from mixer_jax.training.program import Program, make_program

FACTOR = 2.4  # The estimate is at least what the TPU compiler reports, and at most this many times as much, if memory is left.
KERNELS = "tpu"  # The implementation of the models' operations that is counted. It keeps fewest arrays.


@dataclasses.dataclass(frozen=True)
class StepSizes:
    """The bytes that a training step needs, by what they grow with, and the operations of an image.

    Attributes:
      state_bytes: of the parameters and the optimizer, over all devices.
      kernel_bytes: of the parameters in the type in which the model uses them.
      kept_once_bytes: of what the forward pass keeps once for all images: these parameters, and what it makes of them.
      gradient_bytes: of the gradients in float32.
      image_bytes: of an image in a batch, with its targets.
      normalized_bytes: of an image's pixels in float32, with its targets.
      activation_bytes: of what the forward pass keeps for an image.
      flops: operations for an image in the forward and the backward pass.
    """

    state_bytes: int
    kernel_bytes: int
    kept_once_bytes: int
    gradient_bytes: int
    image_bytes: int
    normalized_bytes: int
    activation_bytes: int
    flops: float

    def parts(self, devices: int, batch_size: int, accumulation_steps: int) -> dict[str, float]:
        """Return the bytes on each device by part."""
        images, is_split = batch_size / devices, accumulation_steps > 1
        return {
            "state": self.state_bytes / devices,
            "kernels": self.kept_once_bytes,
            "gradients": self.kernel_bytes + (self.gradient_bytes if is_split else 0),
            "batch": images * (self.image_bytes + (self.normalized_bytes if is_split else 0)),
            "activations": images / accumulation_steps * self.activation_bytes,
        }


def step_sizes(config: ConfigDict) -> StepSizes:
    """Return the sizes of a config's training step. Nothing is computed or allocated: its arrays are traced.

    Raises UserError if the model does not exist or does not take the image size.
    """
    program = make_program(config, total_steps=1000, warmup_steps=10)  # The two lengths change no shape.
    dtype_of = compute_dtype(config.model)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jax.ShapeDtypeStruct(x.shape, dtype_of(path_name(path))), program.params_shapes
    )
    kept_once, for_an_image = _kept_bytes(program, params)
    pixels, targets = 3 * config.image_size**2, 4 * config.num_classes
    return StepSizes(
        state_bytes=_bytes(jax.eval_shape(program.new_state, program.params_shapes)),
        kernel_bytes=_bytes(params),
        kept_once_bytes=max(kept_once, _bytes(params)),
        gradient_bytes=4 * sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
        image_bytes=pixels * (2 if config.augment.mixup else 1) + targets,
        normalized_bytes=4 * pixels + targets,
        activation_bytes=for_an_image + _block_bytes(program, params, for_an_image),
        flops=_flops(program, params),
    )


def _block_bytes(program: Program, params: Any, kept: int) -> int:
    """Return the bytes for an image that the backward pass of a block adds to those that the forward pass has `kept`.

    With model.remat it computes the arrays of one block at a time. Otherwise all of them are kept already.
    """
    if not program.config.model.remat:
        return 0
    config = program.config.copy_and_resolve_references()
    config.model.remat = False
    blocks = {match[0] for path in _paths(params) for match in [BLOCK.search(path)] if match}
    _, whole = _kept_bytes(make_program(config, total_steps=1000, warmup_steps=10), params)
    return math.ceil((whole - kept) / len(blocks))


def _kept_bytes(program: Program, params: Any) -> tuple[int, int]:
    """Return the bytes that the forward pass keeps once, and those for each image, which a second image adds again."""

    def kept(batch_size: int) -> int:
        loss = _loss(program)
        images = _images(program, batch_size)
        with for_platform(KERNELS):
            backward = jax.eval_shape(lambda params, *batch: jax.vjp(lambda p: loss(p, *batch), params)[1], params, *images)
        return _bytes(backward)

    one, two = kept(1), kept(2)
    return one - (two - one), two - one


def _flops(program: Program, params: Any) -> float:
    """Return the operations of the forward and the backward pass for one image, as XLA counts them before it optimizes."""
    with for_platform(KERNELS):
        lowered = jax.jit(jax.grad(_loss(program))).lower(params, *_images(program, 1))
    return lowered.cost_analysis()["flops"]


def _loss(program: Program):
    """Return the function (parameters, normalized images, targets) -> mean loss, as the training step computes it."""
    example_losses = make_loss(program.config.loss.kind, program.config.loss.label_smoothing)

    def loss(params: Any, images: jax.Array, targets: jax.Array) -> jax.Array:
        key = jax.random.key(0)
        logits, _ = program.model.apply({"params": params}, images, train=True, rngs={"dropout": key})
        return example_losses(logits, targets).mean()

    return loss


def _images(program: Program, batch_size: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Return the shapes of normalized images and of their targets."""
    side = program.config.image_size
    shape = program.host_transform(np.empty((side, side, 3), np.uint8)).shape
    targets = (batch_size, program.config.num_classes)
    return jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32), jax.ShapeDtypeStruct(targets, jnp.float32)


def _paths(params: Any) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _bytes(shapes: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
