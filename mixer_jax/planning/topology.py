"""TPU pods by name: `v3:8x8` is a square of 64 TPU v3 chips.

The TPU compiler creates the devices (jax.experimental.topologies). Only the worker process (worker.py) has loaded it.
"""

import math

import jax
from jax.experimental import topologies

from mixer_jax.accelerators import GENERATIONS, Generation
from mixer_jax.errors import UserError


def generation(topology: str) -> Generation:
    """Return the generation of a topology such as v3:8x8. Raises UserError, which lists known ones, for an unknown name."""
    name, _, shape = topology.partition(":")
    if name not in GENERATIONS or not shape:
        raise _unknown(topology, "It must be GENERATION:SHAPE, the shape in chips.")
    return GENERATIONS[name]


def num_devices(topology: str) -> int:
    """Return the number of JAX devices of a topology. A chip has two on v2, v3 and 7x, and one on other generations.

    Raises UserError, which lists known topologies, for an impossible name.
    """
    sides = topology.partition(":")[2].split("x")
    if not all(side.isdecimal() for side in sides):
        raise _unknown(topology, "The shape must be numbers of chips, such as 8x8.")
    return math.prod(map(int, sides)) * generation(topology).devices_per_chip


def devices(topology: str, num_slices: int = 1) -> list[jax.Device]:
    """Return the devices of `num_slices` slices, which the TPU compiler creates. Raises UserError for a shape that it refuses."""
    slices = {"num_slices": num_slices} if num_slices > 1 else {}
    try:
        description = topologies.get_topology_desc(topology, "tpu", **generation(topology).options, **slices)
    except jax.errors.JaxRuntimeError as error:
        raise _unknown(topology, f"The compiler refuses it: {error}.") from error
    return list(description.devices)


def _unknown(topology: str, reason: str) -> UserError:
    shapes = "\n".join(f"  {name}: {known.shapes}" for name, known in GENERATIONS.items())
    return UserError(
        f"There is no topology {topology!r}. {reason} Known shapes by generation (another shape works if each of its sides is a "
        f"multiple of the smallest shape's):\n{shapes}"
    )
