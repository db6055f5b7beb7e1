"""Properties of accelerators as their makers publish them: speed, clock, memory, links. Nothing here was measured by us."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Generation:
    """One generation of TPUs. Its figures are those of one JAX device, which is a core on v2, v3 and 7x and a chip on the others.

    Attributes:
      kind: the name that JAX gives to the device.
      peak_flops_per_sec: dense bfloat16 operations per second.
      clock_hz: clock of the core, in whose cycles the compiler states its estimates.
      memory_gib: memory of the device.
      link_bytes_per_sec: bytes per second that the device can send over all links between chips together. Where a chip has two
        devices, this is half of what the chip can send.
      shapes: some of the topologies that Cloud TPU rents.
      devices_per_chip: JAX devices per chip.
      options: what the compiler must be told besides the topology.
    """

    kind: str
    peak_flops_per_sec: float
    clock_hz: float
    memory_gib: float
    link_bytes_per_sec: float
    shapes: str
    devices_per_chip: int = 1
    options: dict[str, str] = dataclasses.field(default_factory=dict)


MEGACORE = {"chip_config_name": "megacore"}  # This makes one device of the two cores of a chip.

# Sources:
# - Peaks: the makers' data sheets.
# - Clocks of v2 and v3: Norrie et al. 2021 (IEEE Micro 41-2). Clock of v4: Jouppi et al. 2023 (arXiv 2304.01433). Clocks of later
#   generations: the peak in the data sheet, divided by 32768 operations per cycle and matrix unit of 128 x 128. A v5e has the
#   equivalent of 4 such units, a v5p of 8, a v6e and a core of a 7x of 16.
# - Memory and links: the "system architecture" pages of Cloud TPU. For v2 and v3: Jouppi et al. 2020 (CACM 63-7), with 4 links
#   per chip of 496 (v2) or 656 (v3) Gbit/s each.
GENERATIONS = {
    "v2": Generation("TPU v2", 22.5e12, 0.70e9, 8, 124e9, "2x2 4x4 8x8 16x16", 2),
    "v3": Generation("TPU v3", 61.5e12, 0.94e9, 16, 164e9, "2x2 4x4 8x8 16x16 32x32", 2),
    "v4": Generation("TPU v4", 275e12, 1.05e9, 32, 300e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", options=MEGACORE),
    "v5e": Generation("TPU v5 lite", 197e12, 1.50e9, 16, 200e9, "2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
    "v5p": Generation("TPU v5", 459e12, 1.75e9, 95, 600e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", options=MEGACORE),
    "v6e": Generation("TPU v6 lite", 918e12, 1.75e9, 32, 400e9, "2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
    "tpu7x": Generation("TPU7x", 1153.5e12, 2.20e9, 96, 300e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", devices_per_chip=2),
}

# Dense bfloat16 operations per second of one JAX device. The first name that is contained in the device's kind counts, so "TPU v5
# lite" must come before "TPU v5".
PEAK_FLOPS_PER_SEC = {generation.kind: generation.peak_flops_per_sec for generation in GENERATIONS.values()} | {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}


def peak_flops_per_sec(device_kind: str) -> float | None:
    """Return the peak of one device of this kind in bfloat16 operations per second, or None if the table has no figure."""
    return next((peak for name, peak in PEAK_FLOPS_PER_SEC.items() if name in device_kind), None)
