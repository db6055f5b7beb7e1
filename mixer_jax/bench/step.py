"""How fast this machine trains or predicts, beside others that do the same: `python -m mixer_jax bench step`, `bench predict`.

First each of ours starts alone, in a new process and with an empty cache of compiled programs: what compiling takes, the memory,
and the time until the first step is done. Ours starts once more with the cache that this left, as a run that is taken up again.
Then all take turns in one run, so that what else happens on the machine hits all of them; figures are medians over the turns.
Batches are random: no data set is read. Not here: what is timed (work.py), and timm's side (beside_timm.py).
"""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from benchmarks.timm_model import require_same_device, timm
from mixer_jax import parallel
from mixer_jax.bench.alone import alone
from mixer_jax.bench.work import contestants, work_of
from mixer_jax.config import validate
from mixer_jax.errors import UserError
from mixer_jax.records import Progress
from mixer_jax.training.memory import resident_bytes

ROUNDS = 7
EXPLANATION = """
by_cpu_time: cores that others use do not count. compile_seconds: with an empty cache. start_seconds: from the start of a new
process to the end of its first {what}; restart_seconds: the same, once the cache has the compiled program. peak_memory_mib: the
most that {memory_of} held. The machine's load was {load_before} before; where others compute too, PyTorch's threads wait for each
other after every operation: put OMP_WAIT_POLICY=PASSIVE in front, so that waiting costs no CPU time, and read by_cpu_time."""
PLAIN = "\nours_plain is without dropout, stochastic depth and remat, as the others are."


class Seconds(NamedTuple):
    clock: float
    cpu: float  # of all threads


Turn = Callable[[int], Seconds]
"""Does that many steps, or batches."""


def benchmark(kind: str, config: ConfigDict, num_steps: int, timm_python: str = "") -> dict:
    """Figures of a "step" or of "predict", by who it is, `num_steps` in each turn; timm is among them with a Python that has it.

    Raises UserError for a config or a Python that cannot be.
    """
    validate(config)
    if num_steps < 1:
        raise UserError(f"--steps={num_steps}: a turn must have at least 1.")
    load_before = round(os.getloadavg()[0], 2)
    with ExitStack() as stack:
        starts, turns, flops = {}, {}, {}
        if timm_python:
            turn, begun = stack.enter_context(timm(timm_python, kind, config))
            device = begun.pop("device")
        for whose in contestants(kind, config):
            starts[whose] = starts_alone(kind, whose, config)
        mesh = parallel.make_mesh(config.parallel.fsdp)
        for whose in starts:
            work = work_of(kind, whose, config, mesh)
            turns[whose], flops[whose] = _timed(work.run), work.flops
        if timm_python:
            require_same_device(device)
            starts["timm"], turns["timm"] = begun, lambda count: Seconds(**turn(count))
        taken = take_turns(turns, num_steps)
    model, device = config.model, jax.devices()[0]
    compared = taken["ours_plain" if "ours_plain" in taken else "ours"]
    return {
        "what": kind,
        "model": f"{model.family} {model.variant}, {config.image_size} px, {config.num_classes} classes, {model.dtype}",
        "batch_size": config.batch_size,
        "device": device.device_kind,
        "devices": mesh.size,
        "load_before": load_before,
        "figures": {
            whose: speed(config.batch_size, taken[whose], flops.get(whose))
            | ({} if whose.startswith("ours") else ratios(compared, taken[whose]))
            | starts[whose]
            for whose in taken
        },
        "memory_of": "a device" if device.memory_stats() else "the process, with Python and its libraries,",
    }


def starts_alone(kind: str, whose: str, config: ConfigDict) -> dict[str, float]:
    """`start` in a new process and, of ours, in another one after it, which finds the compiled program in the cache."""
    with tempfile.TemporaryDirectory() as cache:
        figures = alone(cache, start, kind, whose, config, time.time())
        if whose == "ours":
            figures["restart_seconds"] = alone(cache, start, kind, whose, config, time.time())["start_seconds"]
    return figures


def start(kind: str, whose: str, config: ConfigDict, began: float) -> dict[str, float]:
    """Of this new process, which was started at `began` (time.time()): seconds and MiB until the first steps are done."""
    parallel.initialize(distributed=False, coordinator="", num_processes=0, process_id=-1)
    mesh = parallel.make_mesh(config.parallel.fsdp)
    work = work_of(kind, whose, config, mesh)
    work.run(1)
    start_seconds = time.time() - began
    work.run(2)
    on_devices = [stats["peak_bytes_in_use"] for device in jax.local_devices() if (stats := device.memory_stats())]
    return {
        "compile_seconds": round(work.compile_seconds, 2),
        "start_seconds": round(start_seconds, 2),
        "peak_memory_mib": max(on_devices, default=resident_bytes("VmHWM")) >> 20,
    }


def _timed(run: Callable[[int], None]) -> Turn:
    def turn(count: int) -> Seconds:
        began, cpu_began = time.perf_counter(), time.process_time()
        run(count)
        return Seconds(time.perf_counter() - began, time.process_time() - cpu_began)

    return turn


def take_turns(turns: dict[str, Turn], num_steps: int) -> dict[str, list[Seconds]]:
    """{whose: each of its ROUNDS turns, a step of it}, after a first turn that does not count. Who comes first alternates."""
    taken = {whose: [] for whose in turns}
    progress = Progress(ROUNDS + 1, 0, "round")
    for done in range(ROUNDS + 1):
        for whose, turn in list(turns.items())[:: (-1) ** done]:
            taken[whose].append(Seconds(*(seconds / num_steps for seconds in turn(num_steps))))
        progress.update(done + 1)
    progress.close()
    return {whose: seconds[1:] for whose, seconds in taken.items()}


def speed(batch_size: int, taken: list[Seconds], flops: float | None) -> dict[str, float | None]:
    """`flops` are of one step on one device; None where they are not counted."""
    clock = median(seconds.clock for seconds in taken)
    figures = {"images_per_sec": round(batch_size / clock, 2)}
    if jax.default_backend() == "cpu":
        figures["images_per_cpu_sec"] = round(batch_size / median(seconds.cpu for seconds in taken), 2)
    if flops is not None:
        peak = parallel.peak_flops_per_sec()
        figures["gflops_per_sec_per_device"] = round(flops / clock / 1e9, 2)
        figures["mfu"] = round(flops / clock / peak, 4) if peak else None
    return figures


def ratios(ours: list[Seconds], theirs: list[Seconds]) -> dict[str, float]:
    """How many times as fast ours is, the median over the turns."""
    times = [(b.clock / a.clock, b.cpu / a.cpu) for a, b in zip(ours, theirs, strict=True)]
    clock, cpu = (round(median(each), 3) for each in zip(*times, strict=True))
    return {"ours_is_times_as_fast": clock} | ({"by_cpu_time": cpu} if jax.default_backend() == "cpu" else {})


def as_text(figures: dict) -> str:
    """What `benchmark` found, for people: a line for each figure, a column for each of those compared."""
    columns = figures["figures"]
    names = dict.fromkeys(name for column in columns.values() for name in column)
    lines = ["{what} of {model}; batches of {batch_size} on {devices} x {device}".format(**figures), ""]
    lines.append(" " * 28 + "".join(f"{whose:>12}" for whose in columns))
    for name in names:
        cells = (column.get(name) for column in columns.values())
        lines.append(f"{name:<28}" + "".join(f"{'-' if cell is None else cell:>12}" for cell in cells))
    return "\n".join(lines) + "\n" + (PLAIN if "ours_plain" in columns else "") + EXPLANATION.format(**figures)
