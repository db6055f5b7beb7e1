"""How fast this machine trains and feeds a model: `python -m mixer_jax bench step`.

Both figures are of one process, taken in one run, so that their ratio says which of the two holds a run up. Medians, because
machines are noisy. Nothing is written.
"""

import statistics
import time
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from mixer_jax import parallel
from mixer_jax.config import validate
from mixer_jax.data.augment import train_transform
from mixer_jax.data.bad_records import BadRecords
from mixer_jax.data.loader import train_batches
from mixer_jax.data.sources import open_source
from mixer_jax.training.program import make_program


def benchmark_step(config: ConfigDict, num_steps: int) -> dict:
    """Images/s of the training step on a batch that is already there, and of the input on its own, over `num_steps` each."""
    validate(config)
    source = open_source(config.data)
    mesh = parallel.make_mesh(config.parallel.fsdp)
    batches = train_batches(
        source,
        train_transform(config.augment, config.image_size),
        seed=config.seed,
        batch_size=config.batch_size,
        rows=parallel.local_rows(mesh, config.batch_size),
        steps=range(num_steps + 1),
        threads=config.loader.threads,
        prefetch=config.loader.prefetch,
        bad=BadRecords(source, config.loader.max_pixels),
    )
    batch = parallel.to_global(next(batches), mesh)
    input_seconds = _median_seconds(lambda: next(batches), num_steps)

    program = make_program(config, total_steps=num_steps, warmup_steps=0)
    step, flops = program.compile_step(mesh, source.max_labels)
    state = program.init_state(mesh, program.init_params(mesh))

    def train_once() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    step_seconds = _median_seconds(train_once, num_steps)
    peak = parallel.peak_flops_per_sec()
    return {
        "device": jax.devices()[0].device_kind,
        "devices": mesh.size,
        "batch_size": config.batch_size,
        "step_images_per_sec": config.batch_size / step_seconds,
        "step_gflops_per_sec_per_device": flops / step_seconds / 1e9,
        "mfu": flops / step_seconds / peak if peak else None,
        "input_images_per_sec": config.batch_size / input_seconds,
        "input_over_step": step_seconds / input_seconds,
    }


def _median_seconds(function: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
