"""The process that has the TPU compiler: it is given requests, and answers with what the compiler says of each program.

compiler.py starts it, so that no other process ever loads libtpu, and a compiler that hangs or crashes takes nothing with it. It
compiles what train.py compiles (program.lower_step) or what evaluators call (predict), for devices that are not there.
"""

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
    """One program. `config` is that of a run, with its global batch size; the stage is "train" or "eval" (predict alone)."""

    config: ConfigDict
    topology: str
    num_slices: int = 1
    stage: str = "train"
    reference: bool = False  # the reference's model in place of ours


def compile_program(request: Request, cache: Path, compiler: str) -> dict:
    """What the compiler says of it, for JSON: "fits" or "reason", cycles, memory, operations, collectives, all of one device.

    Kept in `cache` under a digest of the lowered text, so that a program that was compiled before takes seconds.
    """
    config = request.config
    start = time.perf_counter()
    mesh = parallel.make_mesh(config.parallel.fsdp, devices(request.topology, request.num_slices))
    program = make_program(config, total_steps=1000, warmup_steps=10)  # two constants in it: one program for every length
    program = reference_program(program) if request.reference else program
    trained = request.stage == "train"
    lowered = program.lower_step(mesh, config.data.max_labels) if trained else lower_predict(program, mesh)
    known = {"devices": mesh.size, "lower_seconds": time.perf_counter() - start} | state_bytes(program, mesh, request.stage)
    options = filter(None, [os.environ.get("LIBTPU_INIT_ARGS")])  # the compiler's own, when someone tries them
    text = "\n".join([lowered.as_text(), str(mesh), request.topology, compiler, *options])
    file = cache / (hashlib.sha256(text.encode() + Path(hlo.__file__).read_bytes()).hexdigest() + ".json")
    if file.exists():
        return known | json.loads(file.read_text()) | {"cached": True}
    costs = compiled_costs(lowered, config.accumulation_steps if trained else 1)
    write_json(file, costs)
    return known | costs | {"cached": False}


def lower_predict(program: Program, mesh: Mesh) -> jax.stages.Lowered:
    """Inference of one batch: uint8 images to logits, parameters as evaluators have them."""
    predict = make_predict(program.model, mesh)

    def logits(params: dict, images: jax.Array) -> jax.Array:
        return predict(params, images)[0]

    return jax.jit(logits).lower(program.state_shapes(mesh, parallel.GATHERED_AXES).params, program.image_shapes(mesh))


def compiled_costs(lowered: jax.stages.Lowered, parts: int) -> dict:
    """`parts` of an accumulated batch are in a loop, whose body the compiler's count of operations has once."""
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
    """Of the parameters and, in training, of the averaged ones and the optimiser's state, on one device."""

    def held(tree) -> int:
        return sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(tree))

    trained = stage == "train"
    shapes = program.state_shapes(mesh, parallel.STATE_AXES if trained else parallel.GATHERED_AXES)
    return {"parameter_bytes": held(shapes.params), "optimizer_bytes": held((shapes.opt_state, shapes.ema)) if trained else 0}


def main() -> None:
    cache, compiler = Path(sys.argv[1]), sys.argv[2]
    serve(lambda request: compile_program(request, cache, compiler))


if __name__ == "__main__":
    main()
