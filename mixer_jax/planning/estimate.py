"""Turns what the compiler reports about one program into figures of a run: seconds, images/s, shares, GiB, days.

    step time = cycles / clock rate + bytes over the links / speed of all links of a device

The compiler estimates the cycles. It has no estimate for communication, so the second term is ours: it assumes that all links run
at full speed, and that communication never overlaps with computation. In reality some of it overlaps, and links are seldom full.
Communication between slices, over the data center's network, is not counted.
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
LINK_PASSES = {"all-reduce": 2, "send": 0}  # How often the bytes of a collective cross the links. Other collectives: once.
OUT_OF_MEMORY = re.compile(r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)|Used ([\d.]+)G of ([\d.]+)G hbm")
BLOCK = re.compile(r"(MixerBlock|encoderblock|unit)_?\d+")
# Numbers of training images. ImageNet-21k is the whole release of autumn 2011. JFT-300M has 303 million images according to
# arXiv 2010.11929, section 4.1 (arXiv 2105.01601 rounds the number to 300 million).
NUM_EXAMPLES = {"tfds:imagenet2012": 1_281_167, "tfds:imagenet21k": 14_197_122, "tfds:jft300m": 303_000_000}
REST = "loss, optimizer and the rest"
NO_LAYER = (  # Scopes in the name of an operation that are not layers.
    "Mixer",
    "ReferenceMixer",
    "VisionTransformer",
    "ResNet",
    "LayerNorm",  # This one is nested in a scope with a number, such as LayerNorm_0, which is the layer.
    "while",
    "body",
    "closed_call",
    "checkpoint",
    "cond",
    "branch_0_fun",
)


def estimate(compiled: dict, generation: Generation, batch_per_core: int) -> dict:
    """Return the figures of a program: {"fits": True, "step_seconds": ..., ...} or {"fits": False, "reason": ...}.

    `compiled` is what worker.compile_program returned. All figures are of one device: a core on v2, v3 and 7x, a chip on other
    generations. "limit_share" is the share of the matrix units' peak that the step reaches.
    """
    memory = {"memory_limit_gib": generation.memory_gib, "devices": compiled["devices"], "batch_per_core": batch_per_core}
    if not compiled["fits"]:
        return {"fits": False, "reason": compiled["reason"], "over_gib": _excess_gib(compiled["reason"])} | memory
    compute_seconds = sum(compiled["cycles"].values()) / generation.clock_hz
    sent_seconds = {
        name: LINK_PASSES.get(name, 1) * sent["bytes"] / generation.link_bytes_per_sec
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
    """Return the cycles of each layer and direction, the costliest first. `cycles` maps each op name to its cycles.

    A layer is summed over all blocks of the model. A fusion counts for the one operation whose name the compiler gave it.
    """
    totals = Counter()
    for op_name, count in cycles.items():
        totals[layer_name(op_name)] += count
    return dict(totals.most_common())


def layer_name(op_name: str) -> str:
    """Return the layer and direction of an operation, without the number of the block.

    For example, jit(step)/transpose(jvp(Mixer))/MixerBlock_3/LayerNorm_0/add gives "MixerBlock/LayerNorm_0, backward".
    """
    scopes = re.split(r"/(?![^(]*\))", op_name)
    modules = [scope for scope in scopes if re.fullmatch(r"[A-Za-z]\w*", scope)]
    direction = "backward" if "transpose(" in op_name else "forward" if "jvp(" in op_name else ""
    layer = BLOCK.sub(r"\1", "/".join(name for name in modules[:-1] if name not in NO_LAYER))
    return ", ".join(filter(None, [layer, direction])) if layer else REST


def total_steps(config: ConfigDict, num_examples: int = 0) -> int:
    """Return the number of steps of the whole recipe, without opening its data.

    Raises UserError if the length is in epochs, `num_examples` is 0, and the data source is not in NUM_EXAMPLES.
    """
    if config.total.epochs and not num_examples:
        num_examples = num_images(config.data)
    return steps_of(config.total, batch_size=config.batch_size, num_examples=num_examples)


def num_images(data: ConfigDict) -> int:
    """Return the number of images of a dataset or a mixture. Raises UserError if its source is not in NUM_EXAMPLES."""
    if data.parts:
        return sum(map(num_images, data.parts.values()))
    if data.source not in NUM_EXAMPLES:
        raise UserError(
            f"The recipe is {data.source or 'its data'} for a number of epochs, and how many images those are is not known here: "
            "give --examples=N."
        )
    from tensorflow_datasets.core.splits import ReadInstruction  # It is heavy, and most tools never need it.

    name = data.split.partition("[")[0]
    whole = SimpleNamespace(num_examples=NUM_EXAMPLES[data.source])
    parts = ReadInstruction.from_spec(data.split).to_absolute({name: whole})
    return sum(len(range(whole.num_examples)[part.from_ : part.to]) for part in parts)


def _excess_gib(reason: str) -> float | None:
    """Return by how many GiB the program exceeds the device's memory, or None if the compiler's error does not say."""
    match = OUT_OF_MEMORY.search(reason)
    if not match:
        return None
    wanted, limit = (float(gib) for gib in match.groups() if gib)
    return wanted - limit
