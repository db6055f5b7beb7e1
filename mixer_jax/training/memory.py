"""How much of its host's memory a run will need, by part, before it makes anything; refused when the host has less.

Buffers of the input, the features of few-shot evaluators and the state while a checkpoint is written are counted as they are when
they are largest. What cannot be known before is dealt with so:

Images. A worker holds whichever image it has at work. In the budget, which a run is refused by, each is of
ORDINARY_PIXELS. All workers may at once meet images of `loader.max_pixels`, in the form that takes most memory; but to refuse
small machines for that would be wrong. Where it would not fit, a line says so and the run starts.

Programs. Python, JAX and its compiler are what the process takes now and PROGRAM_BYTES, by measurement. On a CPU the state is
counted, because it lies in the host's memory; gradients and activations are the device's part and not counted, as elsewhere.
"""

import sys
from collections.abc import Mapping, Sequence
from os import sysconf
from pathlib import Path
from typing import Any

import cloudpickle
import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.data.sources.mixture import Mixture
from mixer_jax.data.sources.shards import INDEXED_IMAGES
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.loader import EXAMPLES_PER_TASK
from mixer_jax.errors import UserError
from mixer_jax.training.state import TrainState

ORDINARY_PIXELS = 2**24  # of an image: a camera's photograph
MOST_BYTES_PER_PIXEL = 28  # of a TIFF with opacity in 16 bits; a progressive JPEG in full color resolution takes 9, a PNG 6
AUGMENT_BYTES_PER_PIXEL = 24  # of an image as the model sees it: RandAugment's temporary arrays
INDEX_BYTES = 14  # for each image of an open shard: its place, and what malloc keeps when shards are opened and closed
WORKER_BYTES = 48 * 2**20  # of a process that decodes, beside its image: 37 MiB with B/16's augmentation
COPY_BYTES = 4  # for each byte of a source as it is sent to a worker: names of files take 3 as strings, and are first received
SERVER_BYTES = 2**28  # of the process that workers are copies of, which loads what the run has loaded: 249 MiB resident
PROGRAM_BYTES = 3 * 2**28  # compiled on a CPU: a training step 300 MiB (S/32) to 440 (L/16), all programs of the demo 470
COPIES_WHILE_SAVING = 3.5  # of the state, on the host: the most in ten saves in a row; half of it is kept by malloc between them

PARTS = {  # what each is, and what makes it smaller
    "process": "Python, JAX and its compiler",
    "places": "where images lie in open shards",
    "workers": "processes that decode; fewer loader.workers, or loader.processes=False",
    "decoding": "images at work; fewer loader.workers",
    "ready": "examples that are ready; less loader.prefetch",
    "batches": "two, and the examples of the next; a smaller batch_size (evals.*.batch_size), or more hosts",
    "fewshot": "features of few-shot evaluators; smaller splits, or fewer evals.*.shots",
    "state": "parameters and optimizer while they are saved; a smaller model, or more hosts: each writes its part",
}


def check_host_memory(
    config: ConfigDict,
    mesh: Mesh,
    batch_indices: np.ndarray,
    shapes: TrainState,
    source: Source,
    examples: Mapping[str, Mapping[str, Any]],
) -> dict[str, int]:
    """Return {part: MiB needed}. Raises UserError, with all of them, when the host has less.

    Args:
      config: the whole config.
      mesh: the devices.
      batch_indices: the examples of a global batch that this host loads.
      shapes: those of the state.
      source: the training data.
      examples: what evaluators.open_examples returned.
    """
    sources = [source, *(each.source for sets in examples.values() for each in sets.values())]
    parts = {"process": resident_bytes() + PROGRAM_BYTES, "state": state_bytes(shapes, mesh, bool(examples))}
    parts |= input_bytes(config, len(batch_indices) / config.batch_size, sources)
    parts["fewshot"] = max((fewshot_bytes(config.evals[name], sets, shapes) for name, sets in examples.items()), default=0)
    needed, limit = sum(parts.values()), host_bytes()
    text = f"This run needs about {_gib(needed)} of memory on this host, which has {_gib(limit)}"
    if needed > limit:
        raise UserError(text + ":" + "".join(f"\n{parts[name] >> 20:8d} MiB  {name}: {PARTS[name]}" for name in PARTS))
    worst = config.loader.workers * config.loader.max_pixels * MOST_BYTES_PER_PIXEL
    if parts["places"] and needed + worst > limit:
        print(
            f"{text}. Should all workers meet images of loader.max_pixels at once, it needs {_gib(worst)} more; "
            "with fewer --config.loader.workers that can be ruled out.",
            file=sys.stderr,
        )
    return {name: parts[name] >> 20 for name in PARTS}


def input_bytes(config: ConfigDict, share: float, sources: Sequence[Source]) -> dict[str, int]:
    """Return the bytes of the training batches and, beside them, an evaluator's, on a host that reads `share` of each batch."""
    pixels, workers = config.image_size**2, config.loader.workers
    parts = [part for source in sources for part in (source.parts if isinstance(source, Mixture) else [source])]
    decoded = [len(part) for part in parts if _holds_files(part)]
    evaluated = max((evaluator.batch_size or config.batch_size for evaluator in config.evals.values()), default=0)
    streams = 2 if config.evals else 1  # what is ready for training stays so during an evaluation
    image = 3 * min(config.loader.max_pixels, ORDINARY_PIXELS) if decoded else 0
    return {
        "places": INDEX_BYTES * sum(min(count, INDEXED_IMAGES) for count in decoded),
        "workers": _worker_bytes(workers, streams, sources) if config.loader.processes else 0,
        "decoding": workers * (image + AUGMENT_BYTES_PER_PIXEL * pixels),
        "ready": streams * (config.loader.prefetch + workers * EXAMPLES_PER_TASK) * 3 * pixels,
        "batches": round(share * max(3 * config.batch_size, config.batch_size + 3 * evaluated)) * 3 * pixels,
    }


def _holds_files(source: Source) -> bool:
    """Return whether the images are files that are yet to be decoded, by the first one; only a file may be unreadable."""
    try:
        return isinstance(source[0].image, bytes)
    except UnreadableImageError:
        return True


def _worker_bytes(workers: int, streams: int, sources: Sequence[Source]) -> int:
    """Of the processes that decode. Each has its own copy of what a source holds: of a folder, the names of all its files."""
    copies = COPY_BYTES * sum(len(cloudpickle.dumps(source)) for source in sources)
    return SERVER_BYTES + workers * (streams * WORKER_BYTES + copies)


def fewshot_bytes(evaluator: ConfigDict, examples: Mapping[str, Any], shapes: TrainState) -> int:
    """Return the bytes that evaluation/fewshot.py holds; 0 for evaluators of another kind."""
    if evaluator.kind != "fewshot":
        return 0
    train, test = (len(examples[field].source) for field in ("train", "test"))
    kernel = max(jax.tree.leaves(shapes.params["head"]), key=lambda x: x.ndim)  # [C, K] or, of a ResNet's head, [1, 1, C, K]
    classes, channels = examples["train"].source.num_classes, kernel.shape[-2]
    labeled = min(train, classes * max(evaluator.shots))  # of one seed
    used = min(train, labeled * len(evaluator.seeds))
    return 8 * channels * (used + test) + (16 * channels + 16 * classes) * labeled + (16 * channels + 8 * classes) * test


def state_bytes(shapes: TrainState, mesh: Mesh, evaluated: bool) -> int:
    """Return the bytes of the state, on a CPU; of its copies while it is written; of a copy of the parameters for the digest."""

    def part_bytes(x: jax.ShapeDtypeStruct) -> tuple[int, int]:
        """Return the bytes of the different parts that this host's devices hold, and of all of them."""
        size = int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
        places = x.sharding.addressable_devices_indices_map(x.shape).values()
        return size * len({str(place) for place in places}), size * len(places)

    different, held = np.sum([part_bytes(x) for x in jax.tree.leaves(shapes)], axis=0).tolist()
    itself = held if mesh.devices.flat[0].platform == "cpu" else 0
    params = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes.params)) if evaluated else 0
    return round(itself + COPIES_WHILE_SAVING * different) + params


def resident_bytes(field: str = "VmRSS", process: int | str = "self") -> int:
    """What a process takes now, or with VmHWM: the most that it ever took. 0 where there is no /proc."""
    file = Path(f"/proc/{process}/status")
    return int(file.read_text().split(f"{field}:")[1].split()[0]) * 1024 if file.exists() else 0


def host_bytes(root: Path = Path("/")) -> int:
    """The machine's memory or, when that is less, the limit of a control group (container) that this process is in."""
    limits = [sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE")]
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        file = "memory.limit_in_bytes" if controllers else "memory.max"  # version 1, 2
        place = folder / group.strip("/")
        for above in (place, *place.parents):  # a limit above holds too; within a container only the top is there
            text = (above / file).read_text().strip() if above.is_relative_to(folder) and (above / file).exists() else ""
            limits += [int(text)] if text.isdecimal() else []
    return min(limits)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
