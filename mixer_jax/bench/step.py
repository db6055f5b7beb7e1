"""Measures how fast this machine trains or predicts, beside the reference: `python -m mixer_jax bench step`, `bench predict`.

1. Each contestant (contestants.py) starts alone, in a new process with an empty cache of compiled programs. This measures the
   time of compilation, the memory, and the time until the first step is done. "ours" then starts again with the cache that its
   first start left, as a resumed run does.
2. All contestants take turns, so that other programs on the machine disturb all of them alike. Figures are medians over the
   turns.

Batches are random: no data set is read. Programs of other projects can take part (benchmarks/beside_timm.py).
"""

import os
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from mixer_jax import accelerators, parallel
from mixer_jax.bench.contestants import contestant_names, make_contestant
from mixer_jax.bench.fresh_process import run_in_fresh_process
from mixer_jax.hosts.compiled_programs import keep_compiled_programs
from mixer_jax.records import Progress
from mixer_jax.text_table import format_table
from mixer_jax.training.memory import resident_bytes
from mixer_jax.validation import validate

ROUNDS = 7
EXPLANATION = """
by_cpu_time: ours_is_times_as_fast in CPU time, which does not count the time of other programs.
compile_seconds: with an empty cache of compiled programs.
start_seconds: from the start of a new process to the end of its first step or batch.
restart_seconds: the same, with the compiled program in the cache.
peak_memory_mib: the most memory that {memory_of} held.

The machine's load before the benchmark was {load_before}. If other programs are running, PyTorch's threads wait for each other
after every operation: put OMP_WAIT_POLICY=PASSIVE in front of the command, so that waiting costs no CPU time, and read
by_cpu_time."""
COMPARABLE = "\nours_comparable is without dropout, stochastic depth and remat, as the others are."


class Seconds(NamedTuple):
    """The time that something took."""

    clock: float
    cpu: float  # The CPU time of all threads.


Turn = Callable[[int], Seconds]
"""A function that computes a given number of steps or batches, and returns the time that they took."""


def benchmark(kind: str, config: ConfigDict, num_steps: int, others: dict[str, tuple[Turn, dict[str, float]]]) -> dict:
    """Return the figures of each contestant.

    Args:
        kind: "step" for the training step, "predict" for prediction.
        config: The config of a run.
        num_steps: The number of steps or batches in each turn.
        others: Programs of other projects by name: the turn of each, and the figures of its start.

    Raises UserError for an impossible config.
    """
    validate(config)
    load_before = round(os.getloadavg()[0], 2)
    names = contestant_names(kind, config)
    starts = {name: measure_starts(kind, name, config) for name in names} | {name: start for name, (_, start) in others.items()}
    mesh = parallel.make_mesh(config.parallel.fsdp)
    turns, flops = {}, {}
    for name in names:
        contestant = make_contestant(kind, name, config, mesh)
        turns[name], flops[name] = _make_turn(contestant.run), contestant.flops
    seconds = take_turns(turns | {name: turn for name, (turn, _) in others.items()}, num_steps)
    compared = seconds["ours_comparable" if "ours_comparable" in seconds else "ours"]
    model, device = config.model, jax.devices()[0]
    return {
        "what": kind,
        "model": f"{model.family} {model.variant}, {config.image_size} px, {config.num_classes} classes, {model.dtype}",
        "batch_size": config.batch_size,
        "device": device.device_kind,
        "devices": mesh.size,
        "load_before": load_before,
        "figures": {
            name: speed(config.batch_size, seconds[name], flops.get(name))
            | ({} if name.startswith("ours") else ratios(compared, seconds[name]))
            | starts[name]
            for name in seconds
        },
        "memory_of": "a device" if device.memory_stats() else "the process, with Python and its libraries,",
    }


def measure_starts(kind: str, name: str, config: ConfigDict) -> dict[str, float]:
    """Return the figures of a start in a new process and, for "ours", of a second start, which finds the program in the cache."""
    with tempfile.TemporaryDirectory() as cache:
        figures = run_in_fresh_process(cache, start, kind, name, config, time.time())
        if name == "ours":
            restart = run_in_fresh_process(cache, start, kind, name, config, time.time())
            figures["restart_seconds"] = restart["start_seconds"]
    return figures


def start(kind: str, name: str, config: ConfigDict, start_time: float) -> dict[str, float]:
    """Return the seconds and MiB that this process, which was started at `start_time` (time.time()), took for its first steps."""
    keep_compiled_programs()
    mesh = parallel.make_mesh(config.parallel.fsdp)
    contestant = make_contestant(kind, name, config, mesh)
    contestant.run(1)
    start_seconds = time.time() - start_time
    contestant.run(2)
    on_devices = [stats["peak_bytes_in_use"] for device in jax.local_devices() if (stats := device.memory_stats())]
    return {
        "compile_seconds": round(contestant.compile_seconds, 2),
        "start_seconds": round(start_seconds, 2),
        "peak_memory_mib": max(on_devices, default=resident_bytes("VmHWM")) >> 20,
    }


def _make_turn(run: Callable[[int], None]) -> Turn:
    """Return a turn that times `run`."""

    def turn(count: int) -> Seconds:
        clock_start, cpu_start = time.perf_counter(), time.process_time()
        run(count)
        return Seconds(time.perf_counter() - clock_start, time.process_time() - cpu_start)

    return turn


def take_turns(turns: dict[str, Turn], num_steps: int) -> dict[str, list[Seconds]]:
    """Return, for each contestant, the seconds of one step in each of ROUNDS turns. A turn before these is not counted.

    The order of the contestants is reversed after every round.
    """
    seconds: dict[str, list[Seconds]] = {name: [] for name in turns}
    progress = Progress(ROUNDS + 1, 0, "round")
    for done in range(ROUNDS + 1):
        for name, turn in list(turns.items())[:: (-1) ** done]:
            seconds[name].append(Seconds(*(total / num_steps for total in turn(num_steps))))
        progress.update(done + 1)
    progress.close()
    return {name: counted for name, (_, *counted) in seconds.items()}


def speed(batch_size: int, seconds: list[Seconds], flops: float | None) -> dict[str, float | None]:
    """Return the speed over some turns. `flops` are the operations of one step on one device, or None if they are not known."""
    clock = median(turn.clock for turn in seconds)
    figures = {"images_per_sec": round(batch_size / clock, 2)}
    if jax.default_backend() == "cpu":
        figures["images_per_cpu_sec"] = round(batch_size / median(turn.cpu for turn in seconds), 2)
    if flops is not None:
        peak = accelerators.peak_flops_per_sec(jax.devices()[0].device_kind)
        figures["gflops_per_sec_per_device"] = round(flops / clock / 1e9, 2)
        figures["mfu"] = round(flops / clock / peak, 4) if peak else None
    return figures


def ratios(ours: list[Seconds], other: list[Seconds]) -> dict[str, float]:
    """Return how many times as fast as the other ours is, by the clock and, on CPUs, by CPU time: medians over the turns."""
    pairs = list(zip(ours, other, strict=True))
    figures = {"ours_is_times_as_fast": round(median(theirs.clock / own.clock for own, theirs in pairs), 3)}
    if jax.default_backend() == "cpu":
        figures["by_cpu_time"] = round(median(theirs.cpu / own.cpu for own, theirs in pairs), 3)
    return figures


def format_benchmark(figures: dict) -> str:
    """Return the figures that `benchmark` returned as text: one line for each figure, one column for each contestant."""
    columns = figures["figures"]
    names = dict.fromkeys(name for column in columns.values() for name in column)
    table = format_table([("", *columns), *((name, *(column.get(name) for column in columns.values())) for name in names)])
    title = "{what} of {model}; batches of {batch_size} on {devices} x {device}".format(**figures)
    note = COMPARABLE if "ours_comparable" in columns else ""
    return f"{title}\n\n{table}\n{note}{EXPLANATION.format(**figures)}"
