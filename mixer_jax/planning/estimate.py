"""From what the compiler says of one program on one device to figures of a run: seconds, images, shares, gibibytes, days.

The step's time is the compiler's cycles at the core's clock, and after them what devices send each other, of which the compiler
estimates nothing, at the full speed of all links. In truth some of it overlaps, and links are seldom full. What goes between
slices, over the data centre's network, has no time here.
"""

import re
from collections import Counter

from mixer_jax.parallel import PEAK_FLOPS_PER_SEC
from mixer_jax.planning.topology import Generation

GIB = 2**30
DAY_SECONDS = 86_400
PASSES = {"all-reduce": 2, "send": 0}  # of the bytes over the links; of the other kinds one
WANTED = re.compile(r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)|Used ([\d.]+)G of ([\d.]+)G hbm")
BLOCK = re.compile(r"(MixerBlock|encoderblock|unit)_?\d+")
REST = "loss, optimiser and the rest"
NO_LAYER = (
    "Mixer",
    "ReferenceMixer",
    "VisionTransformer",
    "ResNet",
    "LayerNorm",  # within one with a number
    "while",
    "body",
    "closed_call",
    "checkpoint",
    "cond",
    "branch_0_fun",
)


def figures(found: dict, generation: Generation, batch_per_core: int) -> dict:
    """What worker.compile_program found -> {"fits": True, "step_seconds": ..., ...} or {"fits": False, "reason": ...}.

    All of one device: a core on v2, v3 and 7x, a chip on the others.
    """
    memory = {"memory_limit_gib": generation.memory_gib, "devices": found["devices"], "batch_per_core": batch_per_core}
    if not found["fits"]:
        return {"fits": False, "reason": found["reason"], "over_gib": _over(found["reason"])} | memory
    compute_seconds = sum(found["cycles"].values()) / generation.clock_hz
    sent_seconds = {
        name: PASSES.get(name, 1) * each["bytes"] / generation.link_bytes_per_sec for name, each in found["collectives"].items()
    }
    communication_seconds = sum(sent_seconds.values())
    step_seconds = compute_seconds + communication_seconds
    peak = PEAK_FLOPS_PER_SEC[generation.kind]
    parts = {
        "parameters": found["parameter_bytes"],
        "optimizer": found["optimizer_bytes"],
        "activations_and_gradients": found["temporary_bytes"],
        "batch_program_and_rest": found["argument_bytes"] - found["parameter_bytes"] - found["optimizer_bytes"]
        + found["output_bytes"] + found["code_bytes"],
    }  # fmt: skip
    return {
        "fits": True,
        "images_per_sec_per_core": batch_per_core / step_seconds,
        "step_seconds": step_seconds,
        "compute_seconds": compute_seconds,
        "communication_seconds": communication_seconds,
        "limit_share": found["flops"] / peak / step_seconds,
        "limit_images_per_sec_per_core": peak / (found["flops"] / batch_per_core),
        "gflops_per_image": found["flops"] / batch_per_core / 1e9,
        "cycles": sum(found["cycles"].values()),
        "memory_gib": sum(parts.values()) / GIB,
        "memory_parts_gib": {name: size / GIB for name, size in parts.items()},
        "collectives": found["collectives"],
        "collective_shares": {name: seconds / step_seconds for name, seconds in sent_seconds.items()},
        "layers": layers(found["cycles"]),
        "lower_seconds": found["lower_seconds"],
        "compile_seconds": found["compile_seconds"],
    } | memory


def layers(cycles: dict[str, int]) -> dict[str, int]:
    """Cycles of each layer and direction, all blocks together, the costliest first. {op name: cycles} -> {layer: cycles}.

    A fusion counts for the one operation whose name the compiler gave it.
    """
    found = Counter()
    for op_name, count in cycles.items():
        found[layer_of(op_name)] += count
    return dict(found.most_common())


def layer_of(op_name: str) -> str:
    """jit(step)/transpose(jvp(Mixer))/MixerBlock_3/LayerNorm_0/add -> MixerBlock/LayerNorm_0, backward"""
    scopes = re.split(r"/(?![^(]*\))", op_name)
    modules = [scope for scope in scopes if re.fullmatch(r"[A-Za-z]\w*", scope)]
    direction = "backward" if "transpose(" in op_name else "forward" if "jvp(" in op_name else ""
    layer = BLOCK.sub(r"\1", "/".join(name for name in modules[:-1] if name not in NO_LAYER))
    return ", ".join(filter(None, [layer, direction])) if layer else REST


def _over(reason: str) -> float | None:
    """Gibibytes too many, where the compiler says."""
    found = WANTED.search(reason)
    if not found:
        return None
    wanted, limit = (float(each) for each in found.groups() if each)
    return wanted - limit
