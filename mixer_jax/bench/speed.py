"""How fast something makes batches, by the clock and by the CPU. It needs no other module: a peer has it beside TensorFlow."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BATCH = 64  # images
WARM_UP = 8  # batches for each core, more than are read ahead


def measure(batches: Iterator, seconds: float, cores: int) -> dict[str, float]:
    """Return images a second over `seconds` on `cores`, once the buffers are in use: by the clock, and by the CPU time of all
    processes."""
    _skip(batches, WARM_UP * cores)  # all children are there
    with _confined(cores):
        _skip(batches, WARM_UP * cores)
        images, start, cpu_start = 0, time.perf_counter(), _cpu_seconds()
        while time.perf_counter() < start + seconds:
            next(batches)
            images += BATCH
        cpu_seconds, clock_seconds = _cpu_seconds() - cpu_start, time.perf_counter() - start
    return {"images_per_cpu_sec": images / cpu_seconds, "images_per_sec": images / clock_seconds}


def _skip(batches: Iterator, count: int) -> None:
    for _ in range(count):
        next(batches)


@contextmanager
def _confined(cores: int):
    """Confine this process and its children to `cores`, where a system can (Linux).

    Otherwise a process that only collects batches would use a second core.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    _set_affinity(set(sorted(allowed)[:cores]))
    try:
        yield
    finally:
        _set_affinity(allowed)


def _set_affinity(processors: set[int]) -> None:
    for process in (os.getpid(), *_children()):
        for thread in os.listdir(f"/proc/{process}/task"):
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread), processors)


def _cpu_seconds() -> float:
    """Return the CPU time of this process and its children."""
    clocks = (~child << 3 | 2 for child in _children())  # what clock_getcpuclockid gives on Linux, which Python has not
    return time.process_time() + sum(map(time.clock_gettime, clocks))


def _children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children()]
