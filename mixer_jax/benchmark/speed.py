"""How fast something makes batches, by the clock and by the CPU. Imports nothing: big_vision.py needs it beside TensorFlow."""

import time
from collections.abc import Iterator

BATCH = 64  # images
WARM_UP = 8  # batches, more than are read ahead


def measure(batches: Iterator, seconds: float) -> dict[str, float]:
    """Images a second over `seconds`, once the buffers are in use: by the clock, and of CPU time of this whole process."""
    for _ in range(WARM_UP):
        next(batches)
    images, start, cpu_start = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < start + seconds:
        next(batches)
        images += BATCH
    cpu_seconds, clock_seconds = time.process_time() - cpu_start, time.perf_counter() - start
    return {"images_per_cpu_sec": images / cpu_seconds, "images_per_sec": images / clock_seconds}
