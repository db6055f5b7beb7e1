"""The mesh, which device holds what, and the conversion between arrays of a host and global arrays.

The mesh has three axes: `slice`, `data` and `fsdp`. The batch is split over all three. The state (parameters, their average, the
optimizer's moments) has one copy per slice, because slices are pods that only a slower network joins. Within a slice, the kernels
in the state are split along `fsdp` and `data`, and each device updates its own part (weight update sharding, Xu et al., arXiv
2004.13336).

A step begins with `gather_params`, which gathers the parameters along `data`, in the type that the matrix products take. Along
`fsdp` they stay split until each is used (ZeRO 3, Rajbhandari et al., arXiv 1910.02054). `scatter_grads` then
sums the gradients over devices and splits them as the state is split. XLA's partitioner adds the collective operations.
"""

import contextlib
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mixer_jax.errors import UserError
from mixer_jax.hosts.cluster import is_one_of_several_tpu_hosts
from mixer_jax.hosts.software import VARIABLES

Params = dict[str, Any]  # A tree of arrays or of their shapes: {"stem": {"kernel": ...}, ...}.
Batch = dict[str, jax.Array]  # A global batch, whose examples are split over the mesh. `to_global` makes it.
Tree = TypeVar("Tree")

JAX_OPTIONS = ("jax_default_matmul_precision", "jax_default_prng_impl", "jax_enable_x64", "jax_threefry_partitionable")
AXES = ("slice", "data", "fsdp")

# A regular expression for the paths of the arrays that are split, in the parameters and in trees that mirror them (Adam's
# moments, averaged parameters). Kernels hold over 99 % of the numbers. Biases and norms are too small to be worth the latency of
# gathering.
SPLIT = r".*/kernel"
# The axes of the mesh along which these arrays are split: as the state holds them, and while a step or an evaluation uses them.
STATE_AXES, GATHERED_AXES = ("fsdp", "data"), ("fsdp",)


def make_mesh(fsdp: int, devices: list[Any] | None = None) -> Mesh:
    """Return the mesh of all devices, with the axes slice, data and fsdp.

    Args:
      fsdp: the size of the axis fsdp.
      devices: the devices to use. None: all devices of all hosts.

    Raises:
      UserError: fsdp does not divide the number of devices in a slice; or this machine is one host of a TPU pod slice and has not
        joined the other hosts, so that each host would train alone without a message.
    """
    if not jax.distributed.is_initialized() and is_one_of_several_tpu_hosts():
        raise UserError("This machine is one host of several (a TPU pod slice). Add --distributed, on every host.")
    devices = devices or jax.devices()
    num_slices = len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1
    slice_size = len(devices) // num_slices
    if slice_size % fsdp:
        raise UserError(f"config.parallel.fsdp is {fsdp}: it must divide the number of devices (of a slice), {slice_size}.")
    shape, types = (1, slice_size // fsdp, fsdp), (AxisType.Auto,) * len(AXES)
    if num_slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    return Mesh(mesh_utils.create_hybrid_device_mesh(shape, (num_slices, 1, 1), devices), AXES, axis_types=types)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that gives each device a whole copy."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the first dimension over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_sharding(tree: Any, mesh: Mesh, axes: tuple[str, ...] = STATE_AXES) -> Any:
    """Return a sharding for each array of `tree`.

    An array whose path matches SPLIT is split along each of the mesh axes `axes` in turn: in the dimension that has the largest
    part left, among the dimensions that the mesh axis divides evenly. If there is none, the array is not split along this mesh
    axis. This happens with a kernel of 768 x 3072 and 2048 devices, for example. All other arrays are whole on each device.
    """

    def sharding(path: tuple[Any, ...], x: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        part: list[int] = list(x.shape)  # The shape of the part that a device holds.
        spec: list[tuple[str, ...]] = [()] * x.ndim
        for axis in axes if re.fullmatch(SPLIT, path_name(path)) else ():
            divisible = [dim for dim in range(x.ndim) if part[dim] % mesh.shape[axis] == 0]
            if divisible:
                dim = max(divisible, key=lambda dim: part[dim])
                part[dim] //= mesh.shape[axis]
                spec[dim] += (axis,)
        return NamedSharding(mesh, PartitionSpec(*(dim or None for dim in spec)))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def gather_params(params: Params, mesh: Mesh, dtype_of: Callable[[str], np.dtype]) -> Params:
    """Return the parameters as a step uses them: cast, and gathered along the mesh axis `data`. Call this under jit.

    The cast comes first, so that devices send each other the smaller type.

    Args:
      params: the parameters as the state holds them.
      mesh: the mesh over which they are split.
      dtype_of: a function from a parameter's path to the type in which the model uses this parameter.
    """
    cast = jax.tree_util.tree_map_with_path(lambda path, x: x.astype(dtype_of(path_name(path))), params)
    return jax.lax.with_sharding_constraint(cast, state_sharding(params, mesh, GATHERED_AXES))


def scatter_grads(grads: Params, mesh: Mesh) -> Params:
    """Return the gradients summed over all devices, as float32. Each device has the part that it updates. Call this under jit.

    `grads` are the gradients of the parameters that `gather_params` returned. They are summed over devices in the type that they
    have, and cast to float32 after that.
    """
    # The first constraint splits the gradients only along fsdp, as the gathered parameters are. Without it XLA would sum the
    # gradients over devices once for each part of an accumulated batch.
    for axes in (GATHERED_AXES, STATE_AXES):
        grads = jax.lax.with_sharding_constraint(grads, state_sharding(grads, mesh, axes))
    return jax.tree.map(lambda x: x.astype(jnp.float32), grads)


def use_mesh_in_models(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Expose the mesh to model code that is traced in this context, for the choice of kernels and for sharding constraints."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh) if mesh else contextlib.nullcontext()


def gather_for_evaluation(params: Params, mesh: Mesh) -> Params:
    """Return the parameters gathered along the mesh axis `data`. An evaluation then gathers them once and not for each batch."""
    return jax.device_put(params, state_sharding(params, mesh, GATHERED_AXES))


def path_name(path: tuple[Any, ...]) -> str:
    """Return a pytree path as text, such as "MixerBlock_0/token_mixing/Dense_0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def local_batch_indices(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Return the indices of the examples of a global batch that this process must load, ascending: int64 [examples].

    They follow from the mesh. Example i of the global batch is therefore the same for any number of hosts. Raises UserError if
    the batch cannot be split evenly over the devices.
    """
    if batch_size % mesh.size:
        raise UserError(
            f"A batch of {batch_size} images cannot be split over {mesh.size} devices: make it a multiple of {mesh.size}."
        )
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices]))


def to_global(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """Return the global arrays whose examples are split over the mesh, from the examples that each process has.

    Returns before the data have been copied to the devices.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def from_host(x: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Return a global array with this sharding, from an array that each process has whole."""
    return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])


def to_host(tree: Tree) -> Tree:
    """Return global arrays as whole NumPy arrays, on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def local_device_facts() -> dict[str, Any]:
    """Return the properties of devices and of JAX that must be the same on all hosts of a run."""
    devices = jax.local_devices()
    facts = {"kind of device": devices[0].device_kind, "devices of a host": len(devices)}
    return facts | {name: getattr(jax.config, name) for name in JAX_OPTIONS}


def device_facts(mesh: Mesh) -> dict[str, Any]:
    """Return the description of the devices that a run's records contain."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": mesh.size,
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
        "jax_options": {name: getattr(jax.config, name) for name in JAX_OPTIONS},
        "variables": {name: os.environ.get(name, "") for name in VARIABLES},
    }


def is_writer() -> bool:
    """Return whether this process is the writer: the one that writes the files which a run has only once."""
    return jax.process_index() == 0


def broadcast_from_writer(value: int) -> int:
    """Return the writer's `value`, a bool or an int of 32 bits, on every process, so that all hosts take the same decision."""
    if jax.process_count() == 1:
        return value
    return type(value)(multihost_utils.broadcast_one_to_all(np.array(value)))
