"""Batches from a source: which record comes at which step, on which host, with which randomness.

The stream of training batches is a pure function of (source, transform, seed, batch size). Example i of the batch of step s has
position s * batch_size + i in the stream, and order.py maps positions to records. The augmentation of a record depends only on
(seed, epoch, record). The step alone therefore determines a run's position in its data, and a run resumes exactly on any number
of hosts, workers or devices.

In training, an image that cannot be read is substituted by another (unreadable.py). In evaluation there is no substitute, because
a figure is over all examples. There, such an image is an error that names the file, unless the caller asks to be told of it
instead. A run that ends with this error resumes from its last checkpoint once the file has been repaired or removed.

The batches are read ahead by the workers of workers.py.
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
from mixer_jax.data.sources.source import Record, Source, prefetch
from mixer_jax.data.stream.order import make_order
from mixer_jax.data.stream.shared_memory import BatchMemory
from mixer_jax.data.stream.unreadable import UnreadableImage, UnreadableImages, read_or_substitute
from mixer_jax.data.stream.workers import worker_pool
from mixer_jax.errors import EnvironmentFault, UserError

AUGMENT_STREAM = 1  # number of this random stream of the run's seed; order.py and unreadable.py define the other streams
EXAMPLES_PER_TASK = 64  # the most examples that a worker loads in one task

HostBatch = dict[str, np.ndarray]
"""The B examples of a batch that this host holds, or one example without the axis B.

image: uint8 [B, H, W, 3], or what the transform makes of it.
labels: int32 [B, M], the classes, padded with -1.
mask: float32 [B], 0 for padding.
substituted: int32 [B], in training only; 1 for an image that was read in place of an unreadable one.
"""

ChooseRecord = Callable[[int], tuple[int, int]]
"""A function that returns (epoch, record) at a position of the stream."""

LoadExample = Callable[[int, int], tuple[HostBatch, list[UnreadableImage]]]
"""A function of (epoch, record) that returns the example and the images that could not be read for it."""


class UnreadableListener(Protocol):
    """An object that is told of the unreadable images of a batch when this batch is due."""

    def add(self, images: Iterable[UnreadableImage]) -> None:
        """Receive the unreadable images of a batch."""


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
    """Yield this host's examples of the batches of `steps`.

    A substitute is augmented with the randomness of the record that it replaces. It therefore differs from the same record at its
    own position in the epoch.

    Args:
      source: the training data.
      transform: the training transform (images/augment.py).
      loader: config.loader.
      seed: the run's seed.
      batch_size: the number of examples of a global batch.
      batch_indices: int64 [B], the indices within a global batch of this host's examples (parallel.local_batch_indices).
      steps: the steps whose batches are yielded.
      unreadable: is told of the unreadable images of a batch when this batch is due.
    """
    order, max_pixels, local_size = make_order(source, seed), loader.max_pixels, len(batch_indices)

    def choose(position: int) -> tuple[int, int]:
        step, index = divmod(position, local_size)
        return order(step * batch_size + int(batch_indices[index]))

    def load(epoch: int, record: int) -> tuple[HostBatch, list[UnreadableImage]]:
        key = np.array([seed, AUGMENT_STREAM, epoch, record], np.uint32)  # SeedSequence converts a list to this array slowly.
        rng = np.random.default_rng(np.random.SeedSequence(key))
        candidate, decoded, unreadable_images = read_or_substitute(source, max_pixels, seed=seed, epoch=epoch, record=record)
        example = _make_example(source, candidate, decoded, transform, rng)
        return example | {"substituted": np.int32(candidate != record)}, unreadable_images

    positions = range(steps.start * local_size, steps.stop * local_size)
    return _read_ahead(source, choose, load, positions, local_size, loader, unreadable)


def eval_batches(
    source: Source,
    transform: Transform,
    loader: ConfigDict,
    *,
    batch_size: int,
    batch_indices: np.ndarray,
    unreadable: UnreadableListener | None = None,
) -> Iterator[HostBatch]:
    """Yield this host's examples of batches that hold every record once, in the source's order.

    The last batch is padded with examples of mask 0. An image that the decoder only warns of is not unreadable (`decode` in
    images/decode.py, with strict=False).

    Args:
      source: the data of an evaluator.
      transform: the evaluation transform (images/augment.py).
      loader: config.loader.
      batch_size: the number of examples of a global batch.
      batch_indices: int64 [B], the indices within a global batch of this host's examples (parallel.local_batch_indices).
      unreadable: is told of the unreadable images of a batch when this batch is due; their examples have mask 0.

    Raises:
      UserError: without `unreadable`, if an image cannot be read. The message names its file.
      EnvironmentFault: without `unreadable`, if the disk fails to deliver an image.
    """
    num_batches, max_pixels, local_size = -(-len(source) // batch_size), loader.max_pixels, len(batch_indices)
    rng = np.random.default_rng(0)  # Transforms take a generator, but an evaluation transform draws nothing from it.
    skips_unreadable = unreadable is not None

    def choose(position: int) -> tuple[int, int]:
        step, index = divmod(position, local_size)
        return 0, step * batch_size + int(batch_indices[index])

    def load(_: int, record: int) -> tuple[HostBatch, list[UnreadableImage]]:
        if record >= len(source):
            return make_padding(), []
        try:
            return _make_example(source, record, source[record].decode(max_pixels, strict=False), transform, rng), []
        except UnreadableImageError as error:
            if skips_unreadable:
                return make_padding(), [UnreadableImage(record, str(error))]
            if isinstance(error, UnavailableImageError):
                raise EnvironmentFault(f"{source.locate(record)} is {error}. See to the disk; what was saved is kept.") from error
            raise UserError(f"{source.locate(record)} is {error}. Mend or remove it.") from error

    def make_padding() -> HostBatch:
        image = np.zeros_like(transform(np.zeros((1, 1, 3), np.uint8), rng))
        return {"image": image, "labels": np.full(source.max_labels, -1, np.int32), "mask": np.float32(0)}

    positions = range(num_batches * local_size)
    return _read_ahead(source, choose, load, positions, local_size, loader, unreadable or UnreadableImages())


def check_labels(source: Source, record: int, labels: tuple[int, ...]) -> None:
    """Raise UserError if a record has more labels than data.max_labels, or a label that is not a class of its source."""
    if len(labels) > source.max_labels:
        raise UserError(f"{source.locate(record)} has {len(labels)} labels: set data.max_labels to at least that.")
    if not all(0 <= label < source.num_classes for label in labels):
        raise UserError(
            f"{source.locate(record)} has the labels {labels}, and its source has {source.num_classes} classes, from 0 on. "
            "Mend the data, or choose another split: a split without labels often has -1."
        )


def _make_example(source: Source, record: int, decoded: Record, transform: Transform, rng: np.random.Generator) -> HostBatch:
    image, labels, _ = decoded
    check_labels(source, record, labels)
    padded = np.full(source.max_labels, -1, np.int32)
    padded[: len(labels)] = labels
    return {"image": np.ascontiguousarray(transform(image, rng)), "labels": padded, "mask": np.float32(1)}


def _read_ahead(
    source: Source,
    choose: ChooseRecord,
    load: LoadExample,
    positions: range,
    batch_size: int,
    loader: ConfigDict,
    unreadable: UnreadableListener,
) -> Iterator[HostBatch]:
    """Yield batches of the examples that `load` returns for `positions`, loaded ahead of time by workers.

    A task has at most EXAMPLES_PER_TASK examples, and their number divides the batch size. A worker copies each example into the
    memory of the batch right after it was loaded, while it is still in the processor's cache. No other copy is made.

    Args:
      source: the data, whose records of a task are all prefetched when the task begins.
      choose: returns the record at a position. A record beyond the end of the source stands for padding.
      load: loads the example of a record.
      positions: the positions, in the order of the examples.
      batch_size: the number of this host's examples in a batch.
      loader: config.loader.
      unreadable: is told of the unreadable images of a batch when this batch is due.
    """
    if not positions:
        return
    task_size = math.gcd(batch_size, EXAMPLES_PER_TASK)
    spec = {name: ((batch_size, *value.shape), value.dtype) for name, value in load(*choose(positions[0]))[0].items()}

    def fill(batch: HostBatch, batch_start: int, task_start: int) -> list[UnreadableImage]:
        unreadable_images = []
        task = range(task_start, task_start + task_size)
        chosen = [choose(positions[batch_start + index]) for index in task]
        prefetch(source, [record for _, record in chosen if record < len(source)])
        for index, (epoch, record) in zip(task, chosen, strict=True):
            example, unreadable_of_example = load(epoch, record)
            for name, value in example.items():
                batch[name][index] = value
            unreadable_images += unreadable_of_example
        return unreadable_images

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
