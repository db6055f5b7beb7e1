"""One config on one pod: does its program compile and fit, how fast would it be, how long would the recipe take.

Every figure is an estimate: the TPU compiler's (cycles, memory), and ours for communication (estimate.py).
"""

import math

from ml_collections import ConfigDict

from mixer_jax.config import validate
from mixer_jax.errors import UserError
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.estimate import DAY_SECONDS, figures
from mixer_jax.planning.recipe import THROUGHPUT, paper_core_days, total_steps
from mixer_jax.planning.topology import generation, num_devices
from mixer_jax.planning.worker import Request

COSTLIEST = 10  # layers that are printed


def plan(
    compiler: Compiler,
    place: str,
    config: ConfigDict,
    topology: str,
    *,
    num_slices: int = 1,
    stage: str = "train",
    batch_per_core: int = 0,
    num_examples: int = 0,
    reference: bool = False,
) -> dict:
    """The figures of estimate.figures and, in training, of the whole recipe. `place` is FILE.py:ARG, for the paper's row.

    With batch_per_core the global batch is that times the devices, and the recipe has the images of its config all the same.
    Raises UserError for a config or a topology that cannot be, and when the compiler fails.
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
    found = figures(compiler.compile(request), generation(topology), config.batch_size // devices)
    paper = {
        "images_per_sec_per_core": THROUGHPUT.get(config.model.family, {}).get(config.model.variant),
        "core_days": paper_core_days(place),
    }
    recipe = {}
    if stage == "train" and found["fits"]:
        steps = math.ceil(images / config.batch_size)
        seconds = steps * found["step_seconds"]
        recipe = {"steps": steps, "hours": seconds / 3600, "core_days": seconds * devices / DAY_SECONDS}
    about = {
        "config": place, "topology": topology, "slices": num_slices, "stage": stage, "fsdp": config.parallel.fsdp,
        "remat": config.model.remat, "accumulation_steps": config.accumulation_steps,
        "estimated_by": compiler.version,
    }  # fmt: skip
    return about | found | recipe | {"paper": paper}


def as_text(found: dict) -> str:
    """What `plan` returned, for people."""
    pod = f"{found['slices']} x {found['topology']}" if found["slices"] > 1 else found["topology"]
    head = f"{found['config']} on {pod}: {found['devices']} devices, {found['batch_per_core']} images on each, {found['stage']}"
    source = f"Estimated by the TPU compiler ({found['estimated_by']}); communication by us, from the links' speed."
    if not found["fits"]:
        over = f" It is {found['over_gib']:.2f} GiB too much." if found["over_gib"] else ""
        return f"{head}\nDoes not fit.{over} {found['reason']}\n`plan --search` finds what does.\n{source}"
    share = found["communication_seconds"] / found["step_seconds"]
    lines = [head, ""]
    lines += [
        row("fits", f"{found['memory_gib']:.2f} of {found['memory_limit_gib']:g} GiB a core"),
        *(row(f"  {name.replace('_', ' ')}", f"{gib:.2f} GiB") for name, gib in found["memory_parts_gib"].items()),
        row("operations an image", f"{found['gflops_per_image']:.1f} GFLOP"),
        row("step", f"{found['step_seconds'] * 1e3:.1f} ms, {share:.0%} of them communication"),
        row("cycles", f"{found['cycles']:,}"),
        row("images/s/core", f"{found['images_per_sec_per_core']:.0f}, {found['limit_share']:.0%} of the matrix units' limit"),
    ]
    for name, each in found["collectives"].items():
        dtypes = ", ".join(f"{dtype} {size / 2**20:.1f}" for dtype, size in each.items() if dtype not in ("count", "bytes"))
        share = found["collective_shares"][name]
        lines.append(row(f"  {name}", f"{each['count']} a step, {share:.1%} of its time, MiB: {dtypes}"))
    if "steps" in found:
        paper = found["paper"]["core_days"]
        beside = f" (paper, TPU-v3: {paper:g})" if paper else ""
        lines.append(
            row("whole recipe", f"{found['steps']:,} steps, {found['hours']:.1f} h, {found['core_days']:.1f} core-days{beside}")
        )
    if found["paper"]["images_per_sec_per_core"]:
        lines.append(row("paper, TPU-v3, inference, measured", f"{found['paper']['images_per_sec_per_core']:g} images/s/core"))
    lines += ["", f"The {COSTLIEST} costliest layers (all blocks together), share of cycles"]
    costliest = list(found["layers"].items())[:COSTLIEST]
    lines += [row(f"  {layer}", f"{count / found['cycles']:.1%}") for layer, count in costliest]
    return "\n".join([*lines, "", source])


def row(name: str, value: str) -> str:
    return f"{name:<48} {value}"
