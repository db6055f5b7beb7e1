"""From a source to batches: which record comes when, on which host, with which randomness.

The stream of training batches is a pure function of (source, transform, seed, batch size). Example i of the batch of step s is at
position s x batch_size + i of the stream, and order.py says which record that is. The augmentation of a record depends on (seed,
epoch, record) alone. So a run's place in its data is its step and nothing more: it is taken up exactly on any number of hosts,
workers or devices.

An image that cannot be read has a substitute in training (unreadable.py). In evaluation nothing can take its place, because a
figure is over all examples: there it is an error that names the file. A run has then been saved, and goes on once it is mended.

Who reads ahead: workers.py.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.images.augment import Transform
from mixer_jax.data.images.decode import UnavailableImageError, UnreadableImageError
from mixer_jax.data.sources.source import Record, Source
from mixer_jax.data.stream.order import make_order
from mixer_jax.data.stream.shared_memory import BatchMemory
from mixer_jax.data.stream.unreadable import UnreadableImage, UnreadableImages, read_or_substitute
from mixer_jax.data.stream.workers import worker_pool
from mixer_jax.errors import EnvironmentFault, UserError

AUGMENT_STREAM = 1  # of a run's seed; order.py and unreadable.py have the others
EXAMPLES_PER_TASK = 64  # that a worker is given at a time

HostBatch = dict[str, np.ndarray]
"""The examples of a batch that this host holds, B in number, or a single one, without the axis B.

image: uint8 [B, H, W, 3], or what the transform makes of it; labels: int32 [B, M], classes, padded with -1; mask: float32 [B], 0
for padding. In training also substituted: int32 [B], 1 where the image of another record stands for one that cannot be read.
"""

LoadExample = Callable[[int], tuple[HostBatch, list[UnreadableImage]]]
"""Loads one example; also returns the unreadable images that it substituted."""


class UnreadableListener(Protocol):
    """Is told of images that cannot be read, when the batch that they were for is due."""

    def add(self, images: Iterable[UnreadableImage]) -> None: ...


def train_batches(
    source: Source,
    transform: Transform,
    loader: ConfigDict,
    *,
    seed: int,
    batch_size: int,
    batch_indices: np.ndarray,
    steps: range,
    unreadable: UnreadableImages,
) -> Iterator[HostBatch]:
    """Yield the batches of `steps`, of each the examples at `batch_indices`, which are those of this host.

    A substitute is augmented as the record in whose place it stands would be: it differs from its own turn in the same epoch.

    Args:
      source: the training data.
      transform: what is made of an image.
      loader: config.loader.
      seed: the run's seed.
      batch_size: examples of a global batch.
      batch_indices: int64 [B], which examples of a global batch to load (parallel.local_batch_indices).
      steps: the steps to yield batches for.
      unreadable: receives the images that cannot be read, when the batch that they were for is due.
    """
    order, max_pixels, local_size = make_order(source, seed), loader.max_pixels, len(batch_indices)

    def load(position: int) -> tuple[HostBatch, list[UnreadableImage]]:
        step, index = divmod(position, local_size)
        epoch, record = order(step * batch_size + int(batch_indices[index]))
        key = np.array([seed, AUGMENT_STREAM, epoch, record], np.uint32)  # a list would be made into this, slowly
        rng = np.random.default_rng(np.random.SeedSequence(key))
        used, decoded, substituted = read_or_substitute(source, max_pixels, seed=seed, epoch=epoch, record=record)
        return _make_example(source, used, decoded, transform, rng) | {"substituted": np.int32(used != record)}, substituted

    return _read_ahead(load, range(steps.start * local_size, steps.stop * local_size), local_size, loader, unreadable)


def eval_batches(
    source: Source,
    transform: Transform,
    loader: ConfigDict,
    *,
    batch_size: int,
    batch_indices: np.ndarray,
    unreadable: UnreadableListener | None = None,
) -> Iterator[HostBatch]:
    """Yield every record exactly once over all hosts, in the source's order; the last batch is padded with examples of mask 0.

    An image that cannot be read is told to `unreadable`, and its example has mask 0. Without `unreadable`, raises UserError that
    names the record, or EnvironmentFault where it is the disk that does not give it. Mere warnings of the decoder do not count
    (images/decode.py).
    """
    num_batches, max_pixels, local_size = -(-len(source) // batch_size), loader.max_pixels, len(batch_indices)
    rng = np.random.default_rng(0)  # no transform of evaluation draws from it
    may_be_unreadable = unreadable is not None

    def load(position: int) -> tuple[HostBatch, list[UnreadableImage]]:
        step, index = divmod(position, local_size)
        record = step * batch_size + int(batch_indices[index])
        if record >= len(source):
            return blank(), []
        try:
            return _make_example(source, record, source[record].decode(max_pixels, strict=False), transform, rng), []
        except UnreadableImageError as error:
            if may_be_unreadable:
                return blank(), [UnreadableImage(record, str(error))]
            if isinstance(error, UnavailableImageError):
                raise EnvironmentFault(f"{source.locate(record)} is {error}. See to the disk; what was saved is kept.") from error
            raise UserError(f"{source.locate(record)} is {error}. Mend or remove it.") from error

    def blank() -> HostBatch:
        image = np.zeros_like(transform(np.zeros((1, 1, 3), np.uint8), rng))
        return {"image": image, "labels": np.full(source.max_labels, -1, np.int32), "mask": np.float32(0)}

    return _read_ahead(load, range(num_batches * local_size), local_size, loader, unreadable or UnreadableImages())


def check_labels(source: Source, record: int, labels: tuple[int, ...]) -> None:
    """Raise UserError for more labels than the source may have, or for one that is no class."""
    if len(labels) > source.max_labels:
        raise UserError(f"{source.locate(record)} has {len(labels)} labels: set data.max_labels to at least that.")
    if not all(0 <= label < source.num_classes for label in labels):
        raise UserError(
            f"{source.locate(record)} has the labels {labels}, and its source {source.num_classes} classes, from 0 on. Mend "
            "the data, or choose another split: one without labels often has -1."
        )


def _make_example(source: Source, record: int, decoded: Record, transform: Transform, rng: np.random.Generator) -> HostBatch:
    image, labels, _ = decoded
    check_labels(source, record, labels)
    padded = np.full(source.max_labels, -1, np.int32)
    padded[: len(labels)] = labels
    return {"image": np.ascontiguousarray(transform(image, rng)), "labels": padded, "mask": np.float32(1)}


def _read_ahead(
    load: LoadExample, positions: range, batch_size: int, loader: ConfigDict, unreadable: UnreadableListener
) -> Iterator[HostBatch]:
    """Yield the examples that `load` makes of `positions`, in batches of `batch_size` (this host's).

    A worker is given EXAMPLES_PER_TASK examples at a time, or as many as divide a batch. Each is copied once, to where it belongs
    in the batch, while the processor has it in its cache.
    """
    if not positions:
        return
    task_size = math.gcd(batch_size, EXAMPLES_PER_TASK)
    spec = {name: ((batch_size, *value.shape), value.dtype) for name, value in load(positions[0])[0].items()}

    def fill(batch: HostBatch, batch_start: int, task_start: int) -> list[UnreadableImage]:
        substituted = []
        for index in range(task_start, task_start + task_size):
            example, unreadable_here = load(positions[batch_start + index])
            for name, value in example.items():
                batch[name][index] = value
            substituted += unreadable_here
        return substituted

    memory = BatchMemory(spec, shared=loader.processes)
    with worker_pool(fill, loader.workers, loader.processes) as submit:

        def submit_tasks() -> Iterator[tuple[HostBatch, bool, Future[list[UnreadableImage]]]]:
            for batch_start in range(0, len(positions), batch_size):
                batch = memory.allocate()
                for task_start in range(0, batch_size, task_size):
                    yield batch, task_start + task_size == batch_size, submit(batch, batch_start, task_start)

        tasks = submit_tasks()
        pending = deque(itertools.islice(tasks, loader.workers + -(-loader.prefetch // task_size)))
        while pending:
            batch, completes_batch, task = pending.popleft()
            unreadable.add(task.result())
            pending.extend(itertools.islice(tasks, 1))
            if completes_batch:
                yield dict(batch)
