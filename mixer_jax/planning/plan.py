"""Plans one config on one pod: whether its program compiles and fits, how fast it is, and how long the recipe takes.

Every figure is an estimate. The TPU compiler estimates cycles and memory, and estimate.py estimates communication.
"""

import math
from pathlib import Path

from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.estimate import DAY_SECONDS, estimate, total_steps
from mixer_jax.planning.topology import generation, num_devices
from mixer_jax.planning.worker import Request
from mixer_jax.text_table import format_table
from mixer_jax.validation import validate

NUM_LAYERS_SHOWN = 10

# arXiv 2105.01601, tables 2 and 3: images/s/core of inference, by family and image size. Its authors measured them on TPU-v3,
# each at the best of several batch sizes.
PAPER_THROUGHPUT = {
    ("mixer", 224): {"S/32": 11489, "B/32": 4208, "S/16": 3994, "B/16": 1384, "L/32": 1314, "L/16": 419, "H/14": 194},
    ("mixer", 448): {"L/16": 105, "H/14": 40},
    ("vit", 224): {"B/16": 861, "L/16": 280, "H/14": 87},
    ("vit", 512): {"L/16": 32},
    ("vit", 518): {"H/14": 15},
    ("resnet", 224): {"R50x1": 2159, "R152x1": 932, "R50x2": 890, "R152x2": 356, "R200x3": 141},
    ("resnet", 480): {"R152x4": 26},
}

# arXiv 2105.01601, tables 2 and 3: TPU-v3 core-days of pre-training. Those on ImageNet and ImageNet-21k are the authors'
# extrapolations from JFT-300M, but for the rows of the ViT and BiT papers: L/16-90ep and R152x4 (pretrain_bit_sgd).
PAPER_CORE_DAYS = {
    "pretrain_imagenet": {"B/16": 10, "L/16": 40},
    "pretrain_imagenet21k": {"B/16": 150, "L/16": 410},
    "pretrain_jft300m": {
        "S/32": 10, "S/16": 30, "B/32": 50, "B/16": 80, "L/32": 120, "L/16": 230, "L/16-14ep": 450, "H/14": 1010,
    },
    "pretrain_vit_imagenet": {"B/16": 20, "L/16": 50},
    "pretrain_vit_imagenet21k": {"B/16-300ep": 180, "L/16-300ep": 550, "L/16-90ep": 180},
    "pretrain_vit_jft300m": {"L/16-14ep": 650, "H/14": 2300},
    "pretrain_bit_jft300m": {"R50x1": 80, "R152x1": 140, "R50x2": 140},
    "pretrain_bit_sgd": {"imagenet21k": 940, "jft300m": 9900},
}  # fmt: skip


def plan(
    compiler: Compiler,
    config_file: str,
    config: ConfigDict,
    topology: str,
    *,
    num_slices: int = 1,
    stage: str = "train",
    batch_per_core: int = 0,
    num_examples: int = 0,
    reference: bool = False,
) -> dict:
    """Return the figures of one program (see estimate.estimate) and, for the training step, of the whole recipe.

    Args:
        compiler: Compiles the program.
        config_file: FILE.py:ARG, which names the paper's row.
        config: The config that this file made, with overrides.
        topology: The pod, such as v3:8x8.
        num_slices: How many pods of this topology are joined by the slower data center network.
        stage: "train" for the training step, "eval" for inference.
        batch_per_core: Images on each device, instead of the config's batch. It does not change how many images the recipe
            trains on.
        num_examples: The number of training images, if it is not known for the config's data source.
        reference: Compile the reference model (models/reference.py) instead of the config's.

    Raises UserError if the config or topology is impossible or the compiler fails, and EnvironmentFault if its process dies or
    is too late.
    """
    validate(config)
    config = config.copy_and_resolve_references()
    steps = total_steps(config, num_examples) if stage == "train" else 0
    images = steps * config.batch_size
    devices = num_devices(topology) * num_slices
    if batch_per_core:
        config.batch_size = batch_per_core * devices
    if config.batch_size % devices:
        raise UserError(
            f"{topology} has {devices} devices, and a batch of {config.batch_size} images cannot be split over them: give "
            "--batch-per-core=N."
        )
    request = Request(config, topology, num_slices, stage, reference)
    figures = estimate(compiler.compile(request), generation(topology), config.batch_size // devices)
    paper = {
        "images_per_sec_per_core": PAPER_THROUGHPUT.get((config.model.family, config.image_size), {}).get(config.model.variant),
        "core_days": paper_core_days(config_file),
    }
    recipe = {}
    if stage == "train" and figures["fits"]:
        steps = math.ceil(images / config.batch_size)
        seconds = steps * figures["step_seconds"]
        recipe = {"steps": steps, "hours": seconds / 3600, "core_days": seconds * devices / DAY_SECONDS}
    settings = {
        "config": config_file, "topology": topology, "slices": num_slices, "stage": stage, "fsdp": config.parallel.fsdp,
        "remat": config.model.remat, "accumulation_steps": config.accumulation_steps,
        "estimated_by": compiler.version,
    }  # fmt: skip
    return settings | figures | recipe | {"paper": paper}


def paper_core_days(config_file: str) -> float | None:
    """Return the core-days that the paper gives for the row named by FILE.py:ARG, or None if it gives none."""
    file, _, row = config_file.partition(":")
    return PAPER_CORE_DAYS.get(Path(file).stem, {}).get(row)


def format_plan(figures: dict) -> str:
    """Return the figures that `plan` returned as text for people."""
    pod = f"{figures['slices']} x {figures['topology']}" if figures["slices"] > 1 else figures["topology"]
    devices = f"{figures['devices']} devices, {figures['batch_per_core']} images on each"
    title = f"{figures['config']} on {pod}: {devices}, {figures['stage']}"
    source = f"Estimated by the TPU compiler ({figures['estimated_by']}); communication by us, from the links' speed."
    if not figures["fits"]:
        excess = f" It is {figures['over_gib']:.2f} GiB too much." if figures["over_gib"] else ""
        return f"{title}\nDoes not fit.{excess} {figures['reason']}\n`plan --search` finds what does.\n{source}"
    table = format_table(_program_rows(figures) + _recipe_rows(figures), "<<")
    costliest = list(figures["layers"].items())[:NUM_LAYERS_SHOWN]
    layers = format_table([(f"  {layer}", f"{count / figures['cycles']:.1%}") for layer, count in costliest], "<<")
    layers_title = f"The {NUM_LAYERS_SHOWN} costliest layers (all blocks together), share of cycles"
    return f"{title}\n\n{table}\n\n{layers_title}\n{layers}\n\n{source}"


def _program_rows(figures: dict) -> list[tuple[str, str]]:
    share = figures["communication_seconds"] / figures["step_seconds"]
    rows = [
        ("fits", f"{figures['memory_gib']:.2f} of {figures['memory_limit_gib']:g} GiB a core"),
        *((f"  {name.replace('_', ' ')}", f"{gib:.2f} GiB") for name, gib in figures["memory_parts_gib"].items()),
        ("operations an image", f"{figures['gflops_per_image']:.1f} GFLOP"),
        ("step", f"{figures['step_seconds'] * 1e3:.1f} ms, {share:.0%} of them communication"),
        ("cycles", f"{figures['cycles']:,}"),
        ("images/s/core", f"{figures['images_per_sec_per_core']:.0f}, {figures['limit_share']:.0%} of the matrix units' limit"),
    ]
    for name, sent in figures["collectives"].items():
        dtypes = ", ".join(f"{dtype} {size / 2**20:.1f}" for dtype, size in sent.items() if dtype not in ("count", "bytes"))
        share = figures["collective_shares"][name]
        rows.append((f"  {name}", f"{sent['count']} a step, {share:.1%} of its time, MiB: {dtypes}"))
    return rows


def _recipe_rows(figures: dict) -> list[tuple[str, str]]:
    rows, paper = [], figures["paper"]
    if "steps" in figures:
        paper_note = f" (paper, TPU-v3: {paper['core_days']:g})" if paper["core_days"] else ""
        length = f"{figures['steps']:,} steps, {figures['hours']:.1f} h, {figures['core_days']:.1f} core-days"
        rows.append(("whole recipe", length + paper_note))
    if paper["images_per_sec_per_core"]:
        rows.append(("paper, TPU-v3, inference, measured", f"{paper['images_per_sec_per_core']:g} images/s/core"))
    return rows
