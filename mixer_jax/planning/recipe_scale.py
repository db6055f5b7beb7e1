"""Implements `recipe-scale`: turns the recipe of a pod into one for the devices that are there, with the rule behind each flag.

The recipe's own batch is kept unless another is asked for: gradient accumulation then computes the same updates. Another batch
size or length is another recipe, and the options that depend on it follow the rules of scaling_rules.py.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.planning.estimate import GIB, num_images, total_steps
from mixer_jax.planning.memory import FACTOR, StepSizes, step_sizes
from mixer_jax.planning.plan import paper_core_days
from mixer_jax.planning.recorded import recorded_pretraining
from mixer_jax.planning.scaling_rules import Change, batch_changes, length_changes
from mixer_jax.text_table import format_table
from mixer_jax.validation import validate

ACCUMULATION = "fewest parts of which one fits; the mean of their gradients is that of the batch"
EVALUATION = "as many images as training has in one part; it changes no figure"
SAME = "The same updates as the recipe's: what the paper states for this row remains what to expect."
DRAWS = "Each part has draws of its own for dropout and stochastic depth."
OTHER_BATCH = (
    "Another batch size is another recipe. The rules keep training similar and not equal: the paper's figure does not hold."
)
OTHER_LENGTH = "The paper's figure is of another number of images: it does not hold."


def scale(
    config_file: str,
    overrides: Sequence[str],
    devices: int,
    memory_gib: float,
    *,
    batch_size: int = 0,
    epochs: float = 0,
    num_examples: int = 0,
    images_per_second: float = 0,
) -> dict:
    """Return the scaled recipe: its flags with their rules, the memory of a device by part, the cost, and what it is not.

    Args:
      config_file: FILE.py:ROW.
      overrides: Flags that belong to the recipe, such as --config.model.remat=True.
      devices: The number of devices.
      memory_gib: The memory of each that JAX may use.
      batch_size: The images of a step. 0: as in the recipe.
      epochs: The length of training. 0: as in the recipe.
      num_examples: The number of training images, if it is not known for the config's data source.
      images_per_second: The speed of training on all devices together. 0: not known.

    Raises:
      UserError: the batch cannot be split over the devices, is larger than the recipe's, or not one image fits.
    """
    config = app.read_config(config_file, list(overrides))
    validate(config)
    batch = batch_size or config.batch_size
    _check(config, devices, batch)
    sizes = step_sizes(config)
    accumulation_steps = _fewest_parts(sizes, config, devices, batch, memory_gib)
    images = total_steps(config, num_examples) * config.batch_size
    share = _share(config, epochs, num_examples, images) if epochs else 1.0
    changes = [
        *batch_changes(config, batch), *length_changes(config, batch, epochs, share),
        *_part_changes(config, batch, accumulation_steps),
    ]  # fmt: skip
    flags = [change.flag for change in changes]
    scaled = app.read_config(config_file, [*overrides, *flags])
    validate(scaled)
    steps = total_steps(scaled, num_examples)
    parts = sizes.parts(devices, batch, accumulation_steps)
    cost = {"steps": steps, "images": steps * batch, "flops": steps * batch * sizes.flops}
    recorded = None if overrides else recorded_pretraining(config_file)
    core_days = {"planner": recorded and recorded["core_days"], "paper": paper_core_days(config_file)}
    cost["tpu_v3_core_days"] = {name: days and days * cost["images"] / images for name, days in core_days.items()}
    cost["hours"] = cost["images"] / images_per_second / 3600 if images_per_second else None
    return {
        "config": " ".join([config_file, *overrides]), "devices": devices, "memory_gib": memory_gib,
        "batch_size": scaled.batch_size, "accumulation_steps": scaled.accumulation_steps,
        "images_at_once_per_device": batch // accumulation_steps // devices,
        "flags": [{"flag": change.flag, "rule": change.rule} for change in changes],
        "estimated_gib": sum(parts.values()) / GIB, "memory_parts_gib": {name: size / GIB for name, size in parts.items()},
        "cost": cost, "notes": _notes(config, scaled, share),
    }  # fmt: skip


def _check(config: ConfigDict, devices: int, batch: int) -> None:
    if batch > config.batch_size:
        raise UserError(f"--batch-size={batch}: it must be at most the recipe's, {config.batch_size}. More would be no saving.")
    if batch % devices:
        raise UserError(f"A batch of {batch} images cannot be split over {devices} devices: --devices must divide it.")
    if devices % config.parallel.fsdp:
        raise UserError(f"config.parallel.fsdp is {config.parallel.fsdp}: it must divide the {devices} devices.")


def _fewest_parts(sizes: StepSizes, config: ConfigDict, devices: int, batch: int, memory_gib: float) -> int:
    """Return the smallest number of parts of a batch of which one fits. Raises UserError, with all numbers, if none does.

    A recipe that accumulates already is not changed to fewer parts.
    """
    on_device = batch // devices
    fewest = config.accumulation_steps if batch == config.batch_size else 1
    for count in range(fewest, on_device + 1):
        if on_device % count == 0 and sum(sizes.parts(devices, batch, count).values()) <= memory_gib * GIB:
            return count
    parts = sizes.parts(devices, batch, on_device)
    raise UserError(
        f"A step does not fit in {memory_gib:g} GiB even with one image at a time on each device: it takes "
        f"{sum(parts.values()) / GIB:.2f} GiB ({_parts_text(parts)}). More --devices share the state and the batch, a smaller "
        "--batch-size makes the batch smaller"
        + ("." if config.model.remat else ", and --config.model.remat=True makes the activations smaller.")
    )


def _parts_text(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size)


def _share(config: ConfigDict, epochs: float, num_examples: int, images: int) -> float:
    """Return the images of `epochs` over those of the recipe. Raises UserError if the number of examples is not known."""
    if config.total.epochs:
        return epochs / config.total.epochs
    return epochs * (num_examples or num_images(config.data)) / images


def _part_changes(config: ConfigDict, batch: int, accumulation_steps: int) -> list[Change]:
    """Return the changes that make a step, and the batches of evaluators, of parts that fit."""
    if (batch, accumulation_steps) == (config.batch_size, config.accumulation_steps):
        return []
    changes, part = [], batch // accumulation_steps
    if accumulation_steps != config.accumulation_steps:
        changes.append(Change("accumulation_steps", accumulation_steps, ACCUMULATION))
    for name, evaluator in config.evals.items():
        if (evaluator.batch_size or batch) > part:
            changes.append(Change(f"evals.{name}.batch_size", part, EVALUATION))
    return changes


def _notes(config: ConfigDict, scaled: ConfigDict, share: float) -> list[str]:
    notes = []
    if scaled.batch_size != config.batch_size:
        notes.append(OTHER_BATCH)
    if share != 1:
        notes.append(OTHER_LENGTH)
    notes = notes or [SAME]
    if scaled.accumulation_steps != config.accumulation_steps and (config.model.dropout or config.model.stoch_depth):
        notes.append(DRAWS)
    return notes


def format_scaled(figures: dict) -> str:
    """Return what `scale` returned as text for people."""
    cost, flags = figures["cost"], figures["flags"]
    core_days = cost["tpu_v3_core_days"]
    at_once = f"{figures['images_at_once_per_device']} images at once on each device"
    rows = [
        ("devices", str(figures["devices"])),
        ("batch", f"{figures['batch_size']} images in {figures['accumulation_steps']} parts: {at_once}"),
        ("memory of a device", f"{figures['estimated_gib']:.2f} of {figures['memory_gib']:g} GiB, estimated"),
        *((f"  {name}", f"{gib:.2f} GiB") for name, gib in figures["memory_parts_gib"].items()),
        ("cost", f"{cost['steps']:,} steps, {cost['images']:,} images, {cost['flops']:.3g} operations"),
        *((f"  TPU-v3 core-days, {name}", f"{days:.3g}") for name, days in core_days.items() if days),
        ("  time", f"{cost['hours']:,.1f} hours" if cost["hours"] else "not known: --images-per-second, from `bench step`"),
    ]
    listed = format_table([(line["flag"], line["rule"]) for line in flags], "<<") if flags else "none: the recipe fits as it is"
    pasted = " ".join([f"--config={figures['config']}", *(line["flag"] for line in flags)])
    estimate = (
        f"Memory is estimated without a compiler. It is 1 to {FACTOR:g} times what the TPU compiler reports, and more for "
        "a program that it must squeeze in. `plan` asks it, and `bench step` measures a step on the devices that are there."
    )
    texts = [figures["config"], format_table(rows, "<<"), f"Flags\n{listed}", f"python train.py {pasted} --workdir=DIR"]
    return "\n\n".join([*texts, "\n".join([*figures["notes"], estimate])])
