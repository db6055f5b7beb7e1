"""Computes the memory that a run will need on a host, by part, before the run makes anything.

A run that needs more than its host has is refused. Input buffers, few-shot features and the state while a checkpoint is written
are counted at their largest. Two parts cannot be known before the run:

Images. A worker holds the image that it decodes. It is counted with ORDINARY_PIXELS. In the worst case all workers decode images
of `loader.max_pixels` at the same time, in the file format that takes most memory. It would be wrong to refuse small machines for
that case. If it would not fit, the run prints a message and starts.

Programs. Python, JAX and its compiler are counted with what the process holds now, plus PROGRAM_BYTES, which was measured. On a
CPU the state is counted as well, because it lies in the host's memory. Gradients and activations are never counted.
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

ORDINARY_PIXELS = 2**24  # Of an image: as many as a camera's photograph has.
# The most that decoding takes: for a TIFF with opacity and 16 bits. A progressive JPEG without subsampling takes 9, a PNG 6.
MOST_BYTES_PER_PIXEL = 28
AUGMENT_BYTES_PER_PIXEL = 24  # RandAugment's temporary arrays, for each pixel that the model sees.
INDEX_BYTES = 14  # For each image of an open shard: its offset, and what malloc keeps when shards are opened and closed.
WORKER_BYTES = 48 * 2**20  # A decoding process without its image was measured at 37 MiB with B/16's augmentation.
# For each byte of a source as it is sent to a worker. File names take 3 bytes as strings, and the message itself is one more.
COPY_BYTES = 4
SERVER_BYTES = 2**28  # The process from which workers are forked imports what the run has imported: 249 MiB resident.
# Compiling on a CPU took 300 MiB for the training step of S/32, 440 MiB for L/16's, and 470 MiB for all programs of the demo.
PROGRAM_BYTES = 3 * 2**28
# Writing the predictions of an example takes 380 to 760 bytes: its answers, its key, the columns, and their encoding.
PREDICTION_BYTES = 600
# The copies of the state that a host holds while it saves: the most of ten saves. malloc keeps half of them between saves.
COPIES_WHILE_SAVING = 3.5

PARTS = {  # {name of a part: what it is, and what makes it smaller}
    "process": "Python, JAX and its compiler",
    "places": "where images lie in open shards",
    "workers": "processes that decode; fewer loader.workers, or loader.processes=False",
    "decoding": "images that are being decoded; fewer loader.workers",
    "ready": "examples that are ready; less loader.prefetch",
    "batches": "two batches, and the examples of the next; a smaller batch_size (evals.*.batch_size), or more hosts",
    "fewshot": "features of few-shot evaluators; smaller splits, or fewer evals.*.shots",
    "predictions": "the answers to each example of an evaluator; a smaller evals.*.max_predictions",
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
    """Return the MiB that each part needs. Raises UserError, which lists all parts, if the host has less than their sum.

    Args:
      config: The config of the run.
      mesh: The devices.
      batch_indices: The examples of a global batch that this host loads.
      shapes: The shapes of the state.
      source: The training data.
      examples: The examples of each evaluator, by its name and field.
    """
    sources = [source, *(examined.source for fields in examples.values() for examined in fields.values())]
    parts = {"process": resident_bytes() + PROGRAM_BYTES, "state": state_bytes(shapes, mesh, bool(examples))}
    parts |= input_bytes(config, len(batch_indices) / config.batch_size, sources)
    parts["fewshot"] = max((fewshot_bytes(config.evals[name], sets, shapes) for name, sets in examples.items()), default=0)
    parts["predictions"] = max((predictions_bytes(config.evals[name], sets) for name, sets in examples.items()), default=0)
    needed, limit = sum(parts.values()), host_bytes()
    text = f"This run needs about {_gib(needed)} of memory on this host, which has {_gib(limit)}"
    if needed > limit:
        raise UserError(text + ":" + "".join(f"\n{parts[name] >> 20:8d} MiB  {name}: {PARTS[name]}" for name in PARTS))
    worst = config.loader.workers * config.loader.max_pixels * MOST_BYTES_PER_PIXEL
    if parts["places"] and needed + worst > limit:
        print(
            f"{text}. If all workers decode images of loader.max_pixels at the same time, it needs {_gib(worst)} more. Fewer "
            "--config.loader.workers need less.",
            file=sys.stderr,
        )
    return {name: parts[name] >> 20 for name in PARTS}


def input_bytes(config: ConfigDict, share: float, sources: Sequence[Source]) -> dict[str, int]:
    """Return the bytes of each part of the input pipelines of training and evaluation. The host reads `share` of each batch."""
    pixels, workers = config.image_size**2, config.loader.workers
    parts = [part for source in sources for part in (source.parts if isinstance(source, Mixture) else [source])]
    decoded = [len(part) for part in parts if _holds_files(part)]
    evaluated = max((evaluator.batch_size or config.batch_size for evaluator in config.evals.values()), default=0)
    streams = 2 if config.evals else 1  # Batches that are ready for training are kept during an evaluation.
    image = 3 * min(config.loader.max_pixels, ORDINARY_PIXELS) if decoded else 0
    return {
        "places": INDEX_BYTES * sum(min(count, INDEXED_IMAGES) for count in decoded),
        "workers": _worker_bytes(workers, streams, sources) if config.loader.processes else 0,
        "decoding": workers * (image + AUGMENT_BYTES_PER_PIXEL * pixels),
        "ready": streams * (config.loader.prefetch + workers * EXAMPLES_PER_TASK) * 3 * pixels,
        "batches": round(share * max(3 * config.batch_size, config.batch_size + 3 * evaluated)) * 3 * pixels,
    }


def _holds_files(source: Source) -> bool:
    """Return whether a source holds encoded files, judged by its first image. Only an encoded file can be unreadable."""
    try:
        return isinstance(source[0].image, bytes)
    except UnreadableImageError:
        return True


def _worker_bytes(workers: int, streams: int, sources: Sequence[Source]) -> int:
    """Return the bytes of the decoding processes. Each has a copy of the sources. A folder's source holds all its file names."""
    copies = COPY_BYTES * sum(len(cloudpickle.dumps(source)) for source in sources)
    return SERVER_BYTES + workers * (streams * WORKER_BYTES + copies)


def fewshot_bytes(evaluator: ConfigDict, examples: Mapping[str, Any], shapes: TrainState) -> int:
    """Return the bytes of a few-shot evaluator's features and matrices, or 0 for an evaluator of another kind."""
    if evaluator.kind != "fewshot":
        return 0
    train, test = (len(examples[field].source) for field in ("train", "test"))
    kernel = max(jax.tree.leaves(shapes.params["head"]), key=lambda x: x.ndim)  # [C, K] or, of a ResNet's head, [1, 1, C, K]
    classes, channels = examples["train"].source.num_classes, kernel.shape[-2]
    labeled = min(train, classes * max(evaluator.shots))  # The examples of one seed.
    used = min(train, labeled * len(evaluator.seeds))
    return 8 * channels * (used + test) + (16 * channels + 16 * classes) * labeled + (16 * channels + 8 * classes) * test


def predictions_bytes(evaluator: ConfigDict, examples: Mapping[str, Any]) -> int:
    """Return the bytes that the predictions of an evaluator take while they are written, or 0 if it writes none."""
    count = len(examples["data"].source) if evaluator.kind == "classification" else 0
    return PREDICTION_BYTES * count if count and count <= evaluator.max_predictions else 0


def state_bytes(shapes: TrainState, mesh: Mesh, evaluated: bool) -> int:
    """Return the bytes of the state (on a CPU), of its copies while it is saved, and of the parameters copied for a digest."""

    def part_bytes(x: jax.ShapeDtypeStruct) -> tuple[int, int]:
        """Return the bytes of an array's distinct shards on this host's devices, and of all its shards there."""
        size = int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
        shards = x.sharding.addressable_devices_indices_map(x.shape).values()
        return size * len({str(shard) for shard in shards}), size * len(shards)

    distinct, held = np.sum([part_bytes(x) for x in jax.tree.leaves(shapes)], axis=0).tolist()
    on_host = held if mesh.devices.flat[0].platform == "cpu" else 0
    params = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes.params)) if evaluated else 0
    return round(on_host + COPIES_WHILE_SAVING * distinct) + params


def resident_bytes(field: str = "VmRSS", process: int | str = "self") -> int:
    """Return the memory of a process in bytes: now, or at its peak if `field` is VmHWM. Return 0 on systems without /proc."""
    file = Path(f"/proc/{process}/status")
    return int(file.read_text().split(f"{field}:")[1].split()[0]) * 1024 if file.exists() else 0


def host_bytes(root: Path = Path("/")) -> int:
    """Return the machine's memory in bytes, or the limit of this process's control group (container) if that is less."""
    limits = [sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE")]
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        file = "memory.limit_in_bytes" if controllers else "memory.max"  # Control groups of version 1 and 2.
        innermost = folder / group.strip("/")
        # The limits of the enclosing groups apply too. In a container, only the top folder exists.
        for above in (innermost, *innermost.parents):
            text = (above / file).read_text().strip() if above.is_relative_to(folder) and (above / file).exists() else ""
            limits += [int(text)] if text.isdecimal() else []
    return min(limits)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
