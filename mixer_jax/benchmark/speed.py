"""How fast something makes batches, by the clock and by the CPU. Needs nothing else: big_vision.py has it beside TensorFlow."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BATCH = 64  # images
WARM_UP = 8  # batches, more than are read ahead


def measure(batches: Iterator, seconds: float, cores: int) -> dict[str, float]:
    """Images a second over `seconds` on `cores`, once the buffers are in use: by the clock, and of CPU time of this process."""
    with _confined(cores):
        for _ in range(WARM_UP):
            next(batches)
        images, start, cpu_start = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < start + seconds:
            next(batches)
            images += BATCH
        cpu_seconds, clock_seconds = time.process_time() - cpu_start, time.perf_counter() - start
    return {"images_per_cpu_sec": images / cpu_seconds, "images_per_sec": images / clock_seconds}


@contextmanager
def _confined(cores: int):
    """All threads of this process, where a system can (Linux): else one that only collects batches would use a second core."""
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
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), processors)
