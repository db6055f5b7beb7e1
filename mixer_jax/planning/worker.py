"""The worker process that has loaded the TPU compiler: it compiles the programs that it is asked for, and returns their costs.

compiler.py starts it. So no other process ever loads libtpu, and a compiler that hangs or crashes ends only the worker. It
compiles the training step of train.py (Program.lower_step) or the prediction of evaluators (make_predict), for devices that this
machine does not have.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax import parallel
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.planning import hlo
from mixer_jax.planning.topology import devices
from mixer_jax.storage import write_json
from mixer_jax.training.program import Program, make_program, reference_program
from mixer_jax.worker_process import serve


@dataclasses.dataclass(frozen=True)
class Request:
    """A program to compile. `config` is the config of a run, with the batch size over all devices.

    `stage` is "train" for the training step, "eval" for prediction. `reference` replaces the config's model by the reference
    model (models/reference.py).
    """

    config: ConfigDict
    topology: str
    num_slices: int = 1
    stage: str = "train"
    reference: bool = False


def compile_program(request: Request, cache: Path | None, compiler: str) -> dict:
    """Return what the compiler reports about a program on one device, as values for JSON.

    These are the costs (see compiled_costs), the bytes of the state (see state_bytes), the number of devices, the seconds that
    lowering took, and whether the costs came from the cache.

    The costs are kept in the folder `cache` under a digest of the lowered text, so a program that was compiled before takes
    seconds. `compiler` is the compiler's version, which is part of the digest, as is the source of hlo.py.

    Raises UserError for a topology that the compiler refuses and for an impossible config.
    """
    config = request.config
    start = time.perf_counter()
    mesh = parallel.make_mesh(config.parallel.fsdp, devices(request.topology, request.num_slices))
    # The two lengths are constants in the program. Fixed values let recipes of any length share one cached program.
    program = make_program(config, total_steps=1000, warmup_steps=10)
    program = reference_program(program) if request.reference else program
    is_training = request.stage == "train"
    lowered = program.lower_step(mesh, config.data.max_labels) if is_training else lower_predict(program, mesh)
    facts = {"devices": mesh.size, "lower_seconds": time.perf_counter() - start} | state_bytes(program, mesh, request.stage)
    options = filter(None, [os.environ.get("LIBTPU_INIT_ARGS")])  # Options of libtpu change what it compiles.
    text = "\n".join([lowered.as_text(), str(mesh), request.topology, compiler, *options])
    digest = hashlib.sha256(text.encode() + Path(hlo.__file__).read_bytes()).hexdigest()
    file = cache / f"{digest}.json" if cache else None
    if file and file.exists():
        return facts | json.loads(file.read_text()) | {"cached": True}
    costs = compiled_costs(lowered, config.accumulation_steps if is_training else 1)
    if file:
        with contextlib.suppress(OSError):  # The disk of the cache may be full.
            write_json(file, costs)
    return facts | costs | {"cached": False}


def lower_predict(program: Program, mesh: Mesh) -> jax.stages.Lowered:
    """Return the lowered prediction of one batch, from uint8 images to logits, with the parameters sharded as in evaluators."""
    predict = make_predict(program.model, mesh)

    def logits(params: dict, images: jax.Array) -> jax.Array:
        return predict(params, images)[0]

    return jax.jit(logits).lower(program.state_shapes(mesh, parallel.GATHERED_AXES).params, program.image_shapes(mesh))


def compiled_costs(lowered: jax.stages.Lowered, parts: int) -> dict:
    """Compile a program, and return its costs on one device, or {"fits": False, "reason": ...} if it exceeds the device's memory.

    XLA counts the operations of a loop body once, so they are multiplied by `parts`, the number of parts of an accumulated batch.
    """
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"fits": False, "reason": str(error).splitlines()[0], "compile_seconds": time.perf_counter() - start}
    cycles, collectives = hlo.costs(compiled.as_text())
    memory = compiled.memory_analysis()
    return {
        "fits": True,
        "cycles": cycles,
        "collectives": collectives,
        "flops": compiled.cost_analysis()["flops"] * parts,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "compile_seconds": time.perf_counter() - start,
    }


def state_bytes(program: Program, mesh: Mesh, stage: str) -> dict[str, int]:
    """Return the bytes on one device of the parameters and, in training, of the optimizer state with the averaged parameters."""

    def local_bytes(tree) -> int:
        return sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(tree))

    is_training = stage == "train"
    shapes = program.state_shapes(mesh, parallel.STATE_AXES if is_training else parallel.GATHERED_AXES)
    optimizer_bytes = local_bytes((shapes.opt_state, shapes.ema)) if is_training else 0
    return {"parameter_bytes": local_bytes(shapes.params), "optimizer_bytes": optimizer_bytes}


def main() -> None:
    """Answer requests until standard input ends. The arguments are the cache folder and the compiler's version."""
    cache, compiler = Path(sys.argv[1]) if sys.argv[1] else None, sys.argv[2]
    serve(lambda request: compile_program(request, cache, compiler))


if __name__ == "__main__":
    main()
