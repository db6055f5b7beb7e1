"""`plan --search`: what makes a config fit on a pod, found in a bounded number of compilations."""

from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.plan import plan, row
from mixer_jax.planning.topology import num_devices
from mixer_jax.records import Progress

MOST_COMPILATIONS = 12
MOST_IMAGES = 1024  # on a device; more never made a matrix unit busier


def search(compiler: Compiler, place: str, config: ConfigDict, topology: str, **options) -> dict:
    """{"flags": what to add to the command of the run, "best": the figures with them, "tried": all, in their order}.

    First the smallest fsdp that holds the config's own batch on this pod and, with it, no remat rather than remat. Then the
    largest batch with these to an eighth, by doubling and bisection. Raises UserError when nothing fits.
    """
    tried: list[dict] = []
    progress = Progress(MOST_COMPILATIONS, 0, "compilation")

    def attempt(fsdp: int, remat: bool, batch_per_core: int) -> dict:
        changed = config.copy_and_resolve_references()
        changed.parallel.fsdp, changed.model.remat = fsdp, remat
        tried.append(plan(compiler, place, changed, topology, batch_per_core=batch_per_core, **options))
        progress.update(len(tried), f"fsdp {fsdp}, remat {remat}, {batch_per_core} images a device")
        return tried[-1]

    devices = num_devices(topology) * options.get("num_slices", 1)
    own = max(1, config.batch_size // devices)
    settings = [(2**power, remat) for power in range(devices.bit_length()) if devices % 2**power == 0 for remat in (False, True)]
    best = next((found for fsdp, remat in settings[:MOST_COMPILATIONS] if (found := attempt(fsdp, remat, own))["fits"]), None)
    if not best:
        raise UserError(
            f"{place} does not fit on {topology} with {own} images a device, fsdp up to {tried[-1]['fsdp']} and remat. "
            "Take a larger pod, or a smaller batch_size."
        )
    fits, too_large = own, None
    while len(tried) < MOST_COMPILATIONS and fits < MOST_IMAGES and (not too_large or too_large - fits > max(1, fits // 8)):
        batch = (fits + too_large) // 2 if too_large else 2 * fits
        found = attempt(best["fsdp"], best["remat"], batch)
        if found["fits"]:
            best, fits = found, batch
        else:
            too_large = batch
    progress.close()
    flags = f"--config.batch_size={fits * devices} --config.parallel.fsdp={best['fsdp']} --config.model.remat={best['remat']}"
    return {"flags": flags, "best": best, "tried": tried}


def as_text(found: dict) -> str:
    """What `search` returned, for people."""
    lines = [f"{'fsdp':>6}{'remat':>7}{'images a core':>15}{'GiB a core':>16}{'images/s/core':>15}"]
    for each in found["tried"]:
        size = f"{each['memory_gib']:.2f}" if each["fits"] else "does not fit"
        speed = f"{each['images_per_sec_per_core']:.0f}" if each["fits"] else ""
        lines.append(f"{each['fsdp']:>6}{each['remat']!s:>7}{each['batch_per_core']:>15}{size:>16}{speed:>15}")
    best = found["best"]
    return "\n".join(
        [
            *lines,
            "",
            row(
                "largest batch",
                f"{best['batch_per_core']} images a core, {best['memory_gib']:.2f} of {best['memory_limit_gib']:g} GiB",
            ),
            row("flags", found["flags"]),
            "Another batch size is another recipe: the learning rate is the paper's for 4096.",
            f"Estimated by the TPU compiler ({best['estimated_by']}).",
        ]
    )
