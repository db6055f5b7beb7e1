"""Measures how fast an iterator makes batches, by the clock and by CPU time.

It imports no other module of this package: benchmarks/peers/big_vision.py imports it in an environment with TensorFlow.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BATCH = 64  # Images in a batch.
WARM_UP = 8  # Batches for each core that are not counted. They are more than any pipeline reads ahead.


def measure(batches: Iterator, seconds: float, cores: int) -> dict[str, float]:
    """Return the images a second of `batches` over `seconds` on `cores` cores, once all buffers are in use.

    "images_per_sec" is by the clock, "images_per_cpu_sec" by the CPU time of this process and its children.
    """
    _skip(batches, WARM_UP * cores)  # After these, all child processes exist and can be confined.
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
    """Confine this process and its children to `cores` cores in this context. Does nothing on systems that cannot (not Linux).

    Without it, a process that only collects the batches of its workers would use a second core.
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
            with suppress(ProcessLookupError):  # The thread has ended.
                os.sched_setaffinity(int(thread), processors)


def _cpu_seconds() -> float:
    """Return the CPU time of this process and its children."""
    # On Linux, clock_getcpuclockid returns these clock ids. Python does not have that function.
    clocks = (~child << 3 | 2 for child in _children())
    return time.process_time() + sum(map(time.clock_gettime, clocks))


def _children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children()]
