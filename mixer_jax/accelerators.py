"""What the makers' pages say of accelerators: speed, clock, memory, links. Nothing here was measured."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Generation:
    """One generation of TPUs. Figures are of one JAX device: a core on v2, v3 and 7x, a chip on the others."""

    kind: str  # as JAX names the device
    peak_flops_per_sec: float  # dense bfloat16 operations
    clock_hz: float  # of the core, to which the compiler's cycles refer
    memory_gib: float
    link_bytes_per_sec: float  # all links between chips together, one way; a chip's over its devices
    shapes: str  # that Cloud TPU rents, for example
    devices_per_chip: int = 1
    options: dict[str, str] = dataclasses.field(default_factory=dict)  # what the compiler must be told besides the shape


MEGACORE = {"chip_config_name": "megacore"}  # the two cores of a chip are one device

# Peaks: the makers' data sheets. Clocks: v2, v3 Norrie et al. 2021 (IEEE Micro 41-2); v4 Jouppi et al. 2023 (arXiv 2304.01433);
# later ones from the peak in the data sheet over 32768 operations a cycle of each 128 x 128 matrix unit (v5e 4, v5p 8, v6e and 7x
# 16 such). Memory and links: the "system architecture" pages of Cloud TPU, and for v2, v3 Jouppi et al. 2020 (CACM 63-7): 4 links
# of 496 and 656 Gbit/s a chip.
GENERATIONS = {
    "v2": Generation("TPU v2", 22.5e12, 0.70e9, 8, 124e9, "2x2 4x4 8x8 16x16", 2),
    "v3": Generation("TPU v3", 61.5e12, 0.94e9, 16, 164e9, "2x2 4x4 8x8 16x16 32x32", 2),
    "v4": Generation("TPU v4", 275e12, 1.05e9, 32, 300e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", options=MEGACORE),
    "v5e": Generation("TPU v5 lite", 197e12, 1.50e9, 16, 200e9, "2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
    "v5p": Generation("TPU v5", 459e12, 1.75e9, 95, 600e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", options=MEGACORE),
    "v6e": Generation("TPU v6 lite", 918e12, 1.75e9, 32, 400e9, "2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
    "tpu7x": Generation("TPU7x", 1153.5e12, 2.20e9, 96, 300e9, "2x2x1 2x2x4 4x4x4 4x4x8 8x8x8 8x16x16", devices_per_chip=2),
}

# Dense bfloat16 operations a second of one JAX device, by the first name that its kind contains: "TPU v5 lite" before "TPU v5".
PEAK_FLOPS_PER_SEC = {generation.kind: generation.peak_flops_per_sec for generation in GENERATIONS.values()} | {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}


def peak_flops_per_sec(device_kind: str) -> float | None:
    """Return the peak of one device of this kind in bfloat16, or None where the table has no figure."""
    return next((peak for name, peak in PEAK_FLOPS_PER_SEC.items() if name in device_kind), None)
