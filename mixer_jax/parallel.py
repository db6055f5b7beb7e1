"""The mesh, which device holds what, and host arrays becoming global ones.

The mesh has three axes, and the batch is split over all. The state (parameters, their average, the optimizer's moments) is copied
along `slice` (pods that a slower network joins) and, where a rule says so, split along the others: each device updates the part
that it has (weight update sharding, Xu et al., arXiv 2004.13336). `gather_params` gathers the parameters along `data` once a
step, in the type that the matrix products take; along `fsdp` they stay split until each is used (ZeRO 3, Rajbhandari et al.,
arXiv 1910.02054). `scatter_grads` sends the gradients the other way. XLA's partitioner adds the collectives.
"""

import contextlib
import os
import platform
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
from mixer_jax.storage import cache_folder

Params = dict[str, Any]  # a tree of arrays (or of their shapes): {"stem": {"kernel": ...}, ...}
Batch = dict[str, jax.Array]  # a global batch, split over the mesh by example; to_global makes it of each host's part
Tree = TypeVar("Tree")

JAX_OPTIONS = ("jax_default_matmul_precision", "jax_default_prng_impl", "jax_enable_x64", "jax_threefry_partitionable")
AXES = ("slice", "data", "fsdp")

# Paths of the parameters that are split, in any tree that mirrors them (Adam's moments, averaged weights). Kernels hold over 99 %
# of the numbers; biases and norms are not worth the latency.
SPLIT = r".*/kernel"
STATE_AXES, GATHERED_AXES = ("fsdp", "data"), ("fsdp",)


def keep_compiled_programs() -> None:
    """Let a restart read what an earlier start compiled, from a folder of this user and machine, or JAX's own variable's.

    By machine, because a program compiled for one CPU may use instructions that another lacks. Without such a folder, every start
    compiles.
    """
    folder = None if os.environ.get("JAX_COMPILATION_CACHE_DIR") else cache_folder(f"compiled/{platform.node()}")
    if folder:
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def make_mesh(fsdp: int, devices: list[Any] | None = None) -> Mesh:
    """Return all devices as [slice, data, fsdp].

    Raises UserError when fsdp does not divide their number in a slice, or when this is one host of a pod slice that was not
    joined to the others: each would silently train alone.
    """
    if not jax.distributed.is_initialized() and is_one_of_several_tpu_hosts():
        raise UserError("This machine is one host of several (a TPU pod slice). Add --distributed, on every host.")
    devices = devices or jax.devices()
    num_slices = len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1
    in_slice = len(devices) // num_slices
    if in_slice % fsdp:
        raise UserError(f"config.parallel.fsdp is {fsdp}: it must divide the number of devices (of a slice), {in_slice}.")
    shape, types = (1, in_slice // fsdp, fsdp), (AxisType.Auto,) * len(AXES)
    if num_slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    return Mesh(mesh_utils.create_hybrid_device_mesh(shape, (num_slices, 1, 1), devices), AXES, axis_types=types)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over every device."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_sharding(tree: Any, mesh: Mesh, axes: tuple[str, ...] = STATE_AXES) -> Any:
    """Return a sharding for each array of `tree`: those of SPLIT along `axes`, one after the other, each where most is left.

    An axis of the mesh that divides no axis of the array leaves it whole: 2048 devices and a kernel of 768 x 3072, for example.
    """

    def sharding(path: tuple[Any, ...], x: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        left: list[int] = list(x.shape)
        spec: list[tuple[str, ...]] = [()] * x.ndim
        for axis in axes if re.fullmatch(SPLIT, path_name(path)) else ():
            divided = [dim for dim in range(x.ndim) if left[dim] % mesh.shape[axis] == 0]
            if divided:
                dim = max(divided, key=lambda dim: left[dim])
                left[dim] //= mesh.shape[axis]
                spec[dim] += (axis,)
        return NamedSharding(mesh, PartitionSpec(*(dim or None for dim in spec)))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def gather_params(params: Params, mesh: Mesh, dtype_of: Callable[[str], np.dtype]) -> Params:
    """Return the parameters as a step takes them: each in the type that `dtype_of` has for its path, and whole along `data`.

    The cast comes first, so that what crosses the links is of that type. To be called under jit.
    """
    typed = jax.tree_util.tree_map_with_path(lambda path, x: x.astype(dtype_of(path_name(path))), params)
    return jax.lax.with_sharding_constraint(typed, state_sharding(params, mesh, GATHERED_AXES))


def scatter_grads(grads: Params, mesh: Mesh) -> Params:
    """Sum the gradients of what `gather_params` returned over devices, in float32; each device keeps the part it updates.

    To be called under jit.
    """
    # Summed whole first, or parts of an accumulated batch would each be summed over devices.
    for axes in (GATHERED_AXES, STATE_AXES):
        grads = jax.lax.with_sharding_constraint(grads, state_sharding(grads, mesh, axes))
    return jax.tree.map(lambda x: x.astype(jnp.float32), grads)


def use_mesh_in_models(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Expose the mesh to model code that is traced in this context, for kernel choice and sharding constraints."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh) if mesh else contextlib.nullcontext()


def gather_for_evaluation(params: Params, mesh: Mesh) -> Params:
    """Return the parameters whole along `data`: gathered once, not for each batch."""
    return jax.device_put(params, state_sharding(params, mesh, GATHERED_AXES))


def path_name(path: tuple[Any, ...]) -> str:
    """Return a pytree path as MixerBlock_0/token_mixing/Dense_0/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def local_batch_indices(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Return which examples of a global batch this process must load, ascending: int64 [examples].

    They follow from the mesh, so that example i of the global batch is the same on any number of hosts.
    """
    if batch_size % mesh.size:
        raise UserError(
            f"A batch of {batch_size} images cannot be split over {mesh.size} devices: make it a multiple of {mesh.size}."
        )
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices]))


def to_global(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """Return one global array, split over the mesh, for the examples of each array that this process has.

    Returns before the copy is done.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def from_host(x: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array that every process has whole -> one global array, each device taking its part."""
    return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])


def to_host(tree: Tree) -> Tree:
    """Return complete NumPy arrays, on every process, for global arrays."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def local_device_facts() -> dict[str, Any]:
    """Return what every host of a run must have alike."""
    devices = jax.local_devices()
    facts = {"kind of device": devices[0].device_kind, "devices of a host": len(devices)}
    return facts | {name: getattr(jax.config, name) for name in JAX_OPTIONS}


def device_facts(mesh: Mesh) -> dict[str, Any]:
    """Return what the run's records say about the machines."""
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
    """Whether this process writes the files that a run has once."""
    return jax.process_index() == 0


def broadcast_from_writer(value: int) -> int:
    """Return the writer's value, a bool or an int of 32 bits, on every process: hosts must never disagree on what comes next."""
    if jax.process_count() == 1:
        return value
    return type(value)(multihost_utils.broadcast_one_to_all(np.array(value)))
