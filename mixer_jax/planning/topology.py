"""Pods by name: `v3:8x8` is 64 chips of TPU v3 in a square. What the maker's pages say of each generation, and nothing measured.

The TPU compiler makes the devices (jax.experimental.topologies); this module is for the process that has it (worker.py), and the
table for everyone.
"""

import dataclasses
import math

import jax
from jax.experimental import topologies

from mixer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Generation:
    """Of one JAX device: a core on v2, v3 and 7x, a chip on the others."""

    kind: str  # as JAX calls it
    clock_hz: float  # of the core, to which the compiler's cycles refer
    memory_gib: float
    link_bytes_per_sec: float  # all links between chips together, one way; a chip's over its devices
    shapes: str  # that Cloud TPU rents, for example
    devices_per_chip: int = 1
    options: dict[str, str] = dataclasses.field(default_factory=dict)  # what the compiler must be told besides the shape


# Clocks: v2, v3 Norrie et al. 2021 (IEEE Micro 41-2); v4 Jouppi et al. 2023 (arXiv 2304.01433); later ones from the peak in the
# data sheet over 32768 operations a cycle of each 128 x 128 matrix unit (v5e 4, v5p 8, v6e and 7x 16 such). Memory and links: the
# "system architecture" pages of Cloud TPU, and for v2, v3 Jouppi et al. 2020 (CACM 63-7): 4 links of 496 and 656 Gbit/s a chip.
GENERATIONS = {
    "v2": Generation("TPU v2", 0.70e9, 8, 124e9, "2x2 4x4 8x8 16x16", 2),
    "v3": Generation("TPU v3", 0.94e9, 16, 164e9, "2x2 4x4 8x8 16x16 32x32", 2),
    "v4": Generation(
        "TPU v4", 1.05e9, 32, 300e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", options={"chip_config_name": "megacore"}
    ),
    "v5e": Generation("TPU v5 lite", 1.50e9, 16, 200e9, "2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
    "v5p": Generation(
        "TPU v5", 1.75e9, 95, 600e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", options={"chip_config_name": "megacore"}
    ),
    "v6e": Generation("TPU v6 lite", 1.75e9, 32, 400e9, "2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
    "tpu7x": Generation("TPU7x", 2.20e9, 96, 300e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", devices_per_chip=2),
}


def generation(topology: str) -> Generation:
    """Of a name such as v3:8x8. Raises UserError, listing those that are known."""
    name, _, shape = topology.partition(":")
    if name not in GENERATIONS or not shape:
        raise _unknown(topology, "It must be GENERATION:SHAPE, the shape in chips.")
    return GENERATIONS[name]


def num_devices(topology: str) -> int:
    """How many JAX devices it has: two for each chip on v2 and v3. Raises UserError for a name that cannot be."""
    sides = topology.partition(":")[2].split("x")
    if not all(side.isdecimal() for side in sides):
        raise _unknown(topology, "The shape must be numbers of chips, such as 8x8.")
    return math.prod(map(int, sides)) * generation(topology).devices_per_chip


def devices(topology: str, num_slices: int = 1) -> list[jax.Device]:
    """Those of `num_slices` slices of this name, as the compiler has them. Raises UserError for a shape that it refuses."""
    slices = {"num_slices": num_slices} if num_slices > 1 else {}
    try:
        description = topologies.get_topology_desc(topology, "tpu", **generation(topology).options, **slices)
    except jax.errors.JaxRuntimeError as error:
        raise _unknown(topology, f"The compiler refuses it: {error}.") from error
    return list(description.devices)


def _unknown(topology: str, reason: str) -> UserError:
    known = "\n".join(f"  {name}: {each.shapes}" for name, each in GENERATIONS.items())
    return UserError(
        f"There is no topology {topology!r}. {reason} Some that there are, by generation (where each side is a multiple of the "
        f"smallest's, others will do):\n{known}"
    )
