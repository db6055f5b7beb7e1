"""`plan --search`: what makes a config fit on a pod, found in a bounded number of compilations."""

from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.plan import plan
from mixer_jax.planning.topology import num_devices
from mixer_jax.records import Progress
from mixer_jax.text_table import format_table

MOST_COMPILATIONS = 12
MOST_IMAGES = 1024  # on a device; more never made a matrix unit busier


def search(compiler: Compiler, config_file: str, config: ConfigDict, topology: str, **options) -> dict:
    """Return {"flags": what to add to the command of the run, "best": the figures with them, "tried": all, in their order}.

    First the smallest fsdp that holds the config's own batch on this pod and, with it, no remat rather than remat. Then the
    largest batch with these to an eighth, by doubling and bisection. Raises UserError when nothing fits.
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
    own = max(1, config.batch_size // devices)
    settings = [(2**power, remat) for power in range(devices.bit_length()) if devices % 2**power == 0 for remat in (False, True)]
    attempts = (attempt(fsdp, remat, own) for fsdp, remat in settings[:MOST_COMPILATIONS])
    best = next((figures for figures in attempts if figures["fits"]), None)
    if not best:
        raise UserError(
            f"{config_file} does not fit on {topology} with {own} images a device, fsdp up to {tried[-1]['fsdp']} and remat. "
            "Take a larger pod, or a smaller batch_size."
        )
    fits, too_large = own, None
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
    """Return what `search` returned as text."""
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
