"""From what the compiler says of one program on one device to figures of a run: seconds, images, shares, gibibytes, days.

The step's time is the compiler's cycles at the core's clock, and after them what devices send each other, of which the compiler
estimates nothing, at the full speed of all links. In truth some of it overlaps, and links are seldom full. What goes between
slices, over the data center's network, has no time here.
"""

import re
from collections import Counter
from types import SimpleNamespace

from ml_collections import ConfigDict

from mixer_jax.accelerators import Generation
from mixer_jax.config import steps_of
from mixer_jax.errors import UserError

GIB = 2**30
DAY_SECONDS = 86_400
PASSES = {"all-reduce": 2, "send": 0}  # of the bytes over the links; of the other kinds one
WANTED = re.compile(r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)|Used ([\d.]+)G of ([\d.]+)G hbm")
BLOCK = re.compile(r"(MixerBlock|encoderblock|unit)_?\d+")
# Training images. ImageNet: 1 281 167; ImageNet-21k, all of the autumn 2011 release: 14 197 122; JFT-300M: 303 million
# (arXiv 2010.11929, section 4.1; arXiv 2105.01601 rounds to 300).
NUM_EXAMPLES = {"tfds:imagenet2012": 1_281_167, "tfds:imagenet21k": 14_197_122, "tfds:jft300m": 303_000_000}
REST = "loss, optimizer and the rest"
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


def estimate(compiled: dict, generation: Generation, batch_per_core: int) -> dict:
    """Return the figures of a program: {"fits": True, "step_seconds": ..., ...} or {"fits": False, "reason": ...}.

    `compiled` is what worker.compile_program returned. All figures are of one device: a core on v2, v3 and 7x, a chip on the
    others.
    """
    memory = {"memory_limit_gib": generation.memory_gib, "devices": compiled["devices"], "batch_per_core": batch_per_core}
    if not compiled["fits"]:
        return {"fits": False, "reason": compiled["reason"], "over_gib": _over(compiled["reason"])} | memory
    compute_seconds = sum(compiled["cycles"].values()) / generation.clock_hz
    sent_seconds = {
        name: PASSES.get(name, 1) * sent["bytes"] / generation.link_bytes_per_sec
        for name, sent in compiled["collectives"].items()
    }
    communication_seconds = sum(sent_seconds.values())
    step_seconds = compute_seconds + communication_seconds
    peak = generation.peak_flops_per_sec
    parts = {
        "parameters": compiled["parameter_bytes"],
        "optimizer": compiled["optimizer_bytes"],
        "activations_and_gradients": compiled["temporary_bytes"],
        "batch_program_and_rest": compiled["argument_bytes"] - compiled["parameter_bytes"] - compiled["optimizer_bytes"]
        + compiled["output_bytes"] + compiled["code_bytes"],
    }  # fmt: skip
    return {
        "fits": True,
        "images_per_sec_per_core": batch_per_core / step_seconds,
        "step_seconds": step_seconds,
        "compute_seconds": compute_seconds,
        "communication_seconds": communication_seconds,
        "limit_share": compiled["flops"] / peak / step_seconds,
        "limit_images_per_sec_per_core": peak / (compiled["flops"] / batch_per_core),
        "gflops_per_image": compiled["flops"] / batch_per_core / 1e9,
        "cycles": sum(compiled["cycles"].values()),
        "memory_gib": sum(parts.values()) / GIB,
        "memory_parts_gib": {name: size / GIB for name, size in parts.items()},
        "collectives": compiled["collectives"],
        "collective_shares": {name: seconds / step_seconds for name, seconds in sent_seconds.items()},
        "layers": layers(compiled["cycles"]),
        "lower_seconds": compiled["lower_seconds"],
        "compile_seconds": compiled["compile_seconds"],
    } | memory


def layers(cycles: dict[str, int]) -> dict[str, int]:
    """Return the cycles of each layer and direction, all blocks together, the costliest first, from those of each op name.

    A fusion counts for the one operation whose name the compiler gave it.
    """
    totals = Counter()
    for op_name, count in cycles.items():
        totals[layer_name(op_name)] += count
    return dict(totals.most_common())


def layer_name(op_name: str) -> str:
    """Return the layer of an operation.

    jit(step)/transpose(jvp(Mixer))/MixerBlock_3/LayerNorm_0/add -> MixerBlock/LayerNorm_0, backward
    """
    scopes = re.split(r"/(?![^(]*\))", op_name)
    modules = [scope for scope in scopes if re.fullmatch(r"[A-Za-z]\w*", scope)]
    direction = "backward" if "transpose(" in op_name else "forward" if "jvp(" in op_name else ""
    layer = BLOCK.sub(r"\1", "/".join(name for name in modules[:-1] if name not in NO_LAYER))
    return ", ".join(filter(None, [layer, direction])) if layer else REST


def total_steps(config: ConfigDict, num_examples: int = 0) -> int:
    """Return the steps of the whole recipe, before its data are anywhere near.

    Raises UserError when they depend on how many training images there are, and neither is that given nor the source in
    NUM_EXAMPLES.
    """
    if config.total.epochs and not num_examples:
        num_examples = _num_examples(config.data)
    return steps_of(config.total, batch_size=config.batch_size, num_examples=num_examples)


def _num_examples(data: ConfigDict) -> int:
    if data.parts:
        return sum(map(_num_examples, data.parts.values()))
    if data.source not in NUM_EXAMPLES:
        raise UserError(
            f"The recipe is {data.source or 'its data'} for a number of epochs, and how many images those are is not known here: "
            "give --examples=N."
        )
    from tensorflow_datasets.core.splits import ReadInstruction  # heavy, and most tools never need it

    name = data.split.partition("[")[0]
    whole = SimpleNamespace(num_examples=NUM_EXAMPLES[data.source])
    parts = ReadInstruction.from_spec(data.split).to_absolute({name: whole})
    return sum(len(range(whole.num_examples)[part.from_ : part.to]) for part in parts)


def _over(reason: str) -> float | None:
    """Return how many gibibytes are too many, where the compiler says."""
    match = WANTED.search(reason)
    if not match:
        return None
    wanted, limit = (float(gib) for gib in match.groups() if gib)
    return wanted - limit
