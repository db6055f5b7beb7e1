"""Implements `plan --search`: finds flags with which a config fits on a pod, in a bounded number of compilations."""

from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.plan import plan
from mixer_jax.planning.topology import num_devices
from mixer_jax.records import Progress
from mixer_jax.text_table import format_table

MOST_COMPILATIONS = 12
MOST_IMAGES = 1024  # The limit on one device. More images never made a matrix unit busier.


def search(compiler: Compiler, config_file: str, config: ConfigDict, topology: str, **options) -> dict:
    """Return {"flags": ..., "best": ..., "tried": ...}: flags for the command of the run, and figures as `plan` returns them.

    "best" are the figures with these flags, "tried" the figures of all attempts in their order. The search has two steps:

    1. Find the smallest fsdp with which the config's own batch fits on this pod. For each fsdp, try without remat first.
    2. With this fsdp and remat, find the largest batch by doubling and then by bisection, to within an eighth.

    Together they compile at most MOST_COMPILATIONS programs. `options` are arguments of `plan`. Raises UserError if nothing fits.
    """
    tried: list[dict] = []
    progress = Progress(MOST_COMPILATIONS, 0, "compilation")

    def attempt(fsdp: int, remat: bool, batch_per_core: int) -> dict:
        changed = config.copy_and_resolve_references()
        changed.parallel.fsdp, changed.model.remat = fsdp, remat
        tried.append(plan(compiler, config_file, changed, topology, batch_per_core=batch_per_core, **options))
        progress.update(len(tried), f"fsdp {fsdp}, remat {remat}, {batch_per_core} images a device")
        return tried[-1]

    devices = num_devices(topology) * options.get("num_slices", 1)
    config_batch = max(1, config.batch_size // devices)
    settings = [(2**power, remat) for power in range(devices.bit_length()) if devices % 2**power == 0 for remat in (False, True)]
    attempts = (attempt(fsdp, remat, config_batch) for fsdp, remat in settings[:MOST_COMPILATIONS])
    best = next((figures for figures in attempts if figures["fits"]), None)
    if not best:
        raise UserError(
            f"{config_file} does not fit on {topology} with {config_batch} images a device, fsdp up to {tried[-1]['fsdp']} and "
            "remat. Take a larger pod, or a smaller batch_size."
        )
    fits, too_large = config_batch, None
    while len(tried) < MOST_COMPILATIONS and fits < MOST_IMAGES and (not too_large or too_large - fits > max(1, fits // 8)):
        batch = (fits + too_large) // 2 if too_large else 2 * fits
        figures = attempt(best["fsdp"], best["remat"], batch)
        if figures["fits"]:
            best, fits = figures, batch
        else:
            too_large = batch
    progress.close()
    flags = f"--config.batch_size={fits * devices} --config.parallel.fsdp={best['fsdp']} --config.model.remat={best['remat']}"
    return {"flags": flags, "best": best, "tried": tried}


def format_search(result: dict) -> str:
    """Return the result of `search` as text for people."""
    rows = [("fsdp", "remat", "images a core", "GiB a core", "images/s/core")]
    for figures in result["tried"]:
        size = f"{figures['memory_gib']:.2f}" if figures["fits"] else "does not fit"
        speed = f"{figures['images_per_sec_per_core']:.0f}" if figures["fits"] else ""
        rows.append((figures["fsdp"], figures["remat"], figures["batch_per_core"], size, speed))
    best = result["best"]
    largest = f"{best['batch_per_core']} images a core, {best['memory_gib']:.2f} of {best['memory_limit_gib']:g} GiB"
    return "\n".join(
        [
            format_table(rows, ">"),
            "",
            format_table([("largest batch", largest), ("flags", result["flags"])], "<<"),
            "Another batch size is another recipe: the learning rate is the paper's for 4096.",
            f"Estimated by the TPU compiler ({best['estimated_by']}).",
        ]
    )
