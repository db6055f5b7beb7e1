"""What `bench step` and `bench predict` time: who is compared, and the program of each, compiled and given a random batch.

Ours is what the config asks for: the step that train.py compiles, the prediction that evaluators call. The reference is
models/reference.py around the same loss, optimiser and state. It has neither dropout, stochastic depth nor remat;
where a config has them, a third, "ours_plain", is without them too, and it is that one which is compared.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax import parallel
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.training.program import Program, make_program, reference_program

PLAIN = {"dropout": 0.0, "stoch_depth": 0.0, "remat": False}  # of config.model
WARMUP_STEPS = 10**6  # the learning rate grows so slowly that any number of steps leaves the numbers ordinary


class Work(NamedTuple):
    """A compiled program with all it needs. `run(n)` does n steps or batches and returns when the last is done."""

    run: Callable[[int], None]
    flops: float  # of one, on one device, as the compiler counts them
    compile_seconds: float


def contestants(kind: str, config: ConfigDict) -> list[str]:
    """Who can be compared. The reference is a Mixer whose token mixing is not tiled; nothing is dropped in prediction."""
    if config.model.family != "mixer" or config.image_size > config.model.tile_size > 0:
        return ["ours"]
    plain = kind == "predict" or all(config.model[field] == value for field, value in PLAIN.items())
    return ["ours", "reference"] if plain else ["ours", "ours_plain", "reference"]


def program_of(whose: str, config: ConfigDict) -> Program:
    config = config.copy_and_resolve_references()
    if whose != "ours":
        config.model.update(PLAIN)
    program = make_program(config, 2 * WARMUP_STEPS, WARMUP_STEPS)
    return reference_program(program) if whose == "reference" else program


def random_batch(program: Program, mesh: Mesh) -> dict[str, jax.Array]:
    """uint8 images and one label each, over all devices; other rows on every host."""
    config, (_, *image) = program.config, program.image_shapes(mesh).shape
    rows = len(parallel.local_batch_indices(mesh, config.batch_size))
    rng = np.random.default_rng(jax.process_index())
    batch = {
        "image": rng.integers(0, 256, (rows, *image), np.uint8),
        "labels": rng.integers(0, config.num_classes, (rows, 1), np.int32),
        "mask": np.ones(rows, np.float32),
        "substituted": np.zeros(rows, np.int32),
    }
    return parallel.to_global(batch, mesh)


def step_work(program: Program, mesh: Mesh, batch: dict[str, jax.Array]) -> Work:
    start = time.perf_counter()
    step, flops = program.compile_step(mesh, max_labels=1)
    compile_seconds = time.perf_counter() - start
    state = program.init_state(mesh, program.init_params(mesh))

    def train_once() -> dict:
        nonlocal state
        state, metrics = step(state, batch)
        return metrics

    return Work(_one_ahead(train_once), flops, compile_seconds)


def predict_work(program: Program, mesh: Mesh, batch: dict[str, jax.Array]) -> Work:
    params, images = parallel.gather_for_evaluation(program.init_params(mesh), mesh), batch["image"]
    predict = jax.jit(make_predict(program.model, mesh), out_shardings=parallel.replicated(mesh))
    start = time.perf_counter()
    compiled = predict.lower(params, images).compile()
    compile_seconds = time.perf_counter() - start
    return Work(_one_ahead(lambda: compiled(params, images)), compiled.cost_analysis()["flops"], compile_seconds)


WORK: dict[str, Callable[[Program, Mesh, dict], Work]] = {"step": step_work, "predict": predict_work}


def work_of(kind: str, whose: str, config: ConfigDict, mesh: Mesh) -> Work:
    program = program_of(whose, config)
    return WORK[kind](program, mesh, random_batch(program, mesh))


def _one_ahead(once: Callable[[], object]) -> Callable[[int], None]:
    """As training and evaluation call it: the host starts one and then waits for the one before, so that devices have work."""

    def run(count: int) -> None:
        last = None
        for _ in range(count):
            before, last = last, once()
            jax.block_until_ready(before)
        jax.block_until_ready(last)

    return run
