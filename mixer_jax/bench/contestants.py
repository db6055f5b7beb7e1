"""The programs that `bench step` and `bench predict` time: each is compiled and called with a random batch.

    ours             what the config asks for: the step that train.py compiles, or the prediction that evaluators call
    reference        the same with the reference model (models/reference.py), which has no dropout, stochastic depth or remat
    ours_comparable  ours without these three, if the config has any of them; it is then compared with the reference, not ours

All have the same loss, optimizer and state.
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

COMPARABLE = {"dropout": 0.0, "stoch_depth": 0.0, "remat": False}  # The options of config.model that the reference lacks.
WARMUP_STEPS = 10**6  # The learning rate grows so slowly that the parameters stay ordinary numbers for any number of steps.


class Contestant(NamedTuple):
    """A compiled program with its inputs. `run(n)` computes n steps or batches, and returns when the last one is done."""

    run: Callable[[int], None]
    flops: float  # Operations of one step or batch on one device, as the compiler counts them.
    compile_seconds: float


def contestant_names(kind: str, config: ConfigDict) -> list[str]:
    """Return the names of the contestants, for `kind` "step" or "predict".

    The reference takes part only if the config's model is a Mixer with untiled token mixing, which is what it computes.
    Prediction needs no "ours_comparable": it drops nothing and computes no gradients.
    """
    if config.model.family != "mixer" or config.image_size > config.model.tile_size > 0:
        return ["ours"]
    is_comparable = kind == "predict" or all(config.model[field] == value for field, value in COMPARABLE.items())
    return ["ours", "reference"] if is_comparable else ["ours", "ours_comparable", "reference"]


def contestant_program(name: str, config: ConfigDict) -> Program:
    """Return the program of the contestant with this name, not yet compiled."""
    config = config.copy_and_resolve_references()
    if name != "ours":
        config.model.update(COMPARABLE)
    program = make_program(config, 2 * WARMUP_STEPS, WARMUP_STEPS)
    return reference_program(program) if name == "reference" else program


def make_contestant(kind: str, name: str, config: ConfigDict, mesh: Mesh) -> Contestant:
    """Return the contestant with this name, compiled for `kind`, "step" or "predict"."""
    program = contestant_program(name, config)
    return COMPILE[kind](program, mesh, random_batch(program, mesh))


def random_batch(program: Program, mesh: Mesh) -> dict[str, jax.Array]:
    """Return a global batch of random uint8 images with one label each. Each host draws its own part."""
    config, (_, *image) = program.config, program.image_shapes(mesh).shape
    num_local = len(parallel.local_batch_indices(mesh, config.batch_size))
    rng = np.random.default_rng(jax.process_index())
    batch = {
        "image": rng.integers(0, 256, (num_local, *image), np.uint8),
        "labels": rng.integers(0, config.num_classes, (num_local, 1), np.int32),
        "mask": np.ones(num_local, np.float32),
        "substituted": np.zeros(num_local, np.int32),
    }
    return parallel.to_global(batch, mesh)


def compile_step(program: Program, mesh: Mesh, batch: dict[str, jax.Array]) -> Contestant:
    """Return the training step as a contestant. Each step continues from the state after the step before."""
    start = time.perf_counter()
    step, flops = program.compile_step(mesh, max_labels=1)
    compile_seconds = time.perf_counter() - start
    state = program.init_state(mesh, program.init_params(mesh))

    def train_once() -> dict:
        nonlocal state
        state, metrics = step(state, batch)
        return metrics

    return Contestant(_run_one_ahead(train_once), flops, compile_seconds)


def compile_predict(program: Program, mesh: Mesh, batch: dict[str, jax.Array]) -> Contestant:
    """Return prediction as a contestant, with the parameters gathered as for evaluators."""
    params, images = parallel.gather_for_evaluation(program.init_params(mesh), mesh), batch["image"]
    predict = jax.jit(make_predict(program.model, mesh), out_shardings=parallel.replicated(mesh))
    start = time.perf_counter()
    compiled = predict.lower(params, images).compile()
    compile_seconds = time.perf_counter() - start
    run = _run_one_ahead(lambda: compiled(params, images))
    return Contestant(run, compiled.cost_analysis()["flops"], compile_seconds)


COMPILE: dict[str, Callable[[Program, Mesh, dict], Contestant]] = {"step": compile_step, "predict": compile_predict}


def _run_one_ahead(run_once: Callable[[], object]) -> Callable[[int], None]:
    """Return a function that runs `run_once` a given number of times, as training and evaluation do.

    The host starts a step before it waits for the previous one, so that the devices always have work.
    """

    def run(count: int) -> None:
        current = None
        for _ in range(count):
            previous, current = current, run_once()
            jax.block_until_ready(previous)
        jax.block_until_ready(current)

    return run
