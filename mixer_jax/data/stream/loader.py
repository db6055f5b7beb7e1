"""From a source to batches: which record comes when, on which host, with which randomness.

The stream of training batches is a pure function of (source, transform, seed, batch size). Row r of step s is position
s x batch_size + r, and order.py says which record that is. The augmentation of a record depends on (seed, epoch, record) alone.
So a run's place in its data is its step and nothing more: it is taken up exactly on any number of hosts, workers or devices.

An image that cannot be read has a substitute in training (bad_records.py). In evaluation nothing can take its place, because a
figure is over all examples: there it is an error that names the file. A run has then been saved, and goes on once it is mended.

Who reads ahead: workers.py.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.images import decode as images
from mixer_jax.data.images.augment import Transform
from mixer_jax.data.sources.record import Record, Source
from mixer_jax.data.stream.order import order_of
from mixer_jax.data.stream.shared_memory import Batches
from mixer_jax.data.stream.unreadable import BadRecords, Met, decode, read
from mixer_jax.data.stream.workers import pool
from mixer_jax.errors import UserError

AUGMENT_STREAM = 1  # of a run's seed; order.py and bad_records.py have the others
TOGETHER = 64  # examples that a worker is given at a time

Batch = dict[str, np.ndarray]
"""image: uint8 [rows, H, W, 3], or what the transform makes of it; labels: int32 [rows, M], classes, padded with -1; mask:
float32 [rows], 0 for padding rows.

In training also substituted: int32 [rows], 1 where another record stands for a bad one.
"""

Example = tuple[Batch, list[Met]]
"""(a row of each of these, bad records that were met on the way)"""


def train_batches(
    source: Source,
    transform: Transform,
    loader: ConfigDict,
    *,
    seed: int,
    batch_size: int,
    rows: np.ndarray,
    steps: range,
    bad: BadRecords,
) -> Iterator[Batch]:
    """The batches of `steps`, of each the `rows` that this host holds (parallel.local_batch_indices); `loader` is config.loader.

    A substitute is augmented as the record in whose place it stands would be: it differs from its own turn in the same epoch.
    """
    order, max_pixels = order_of(source, seed), loader.max_pixels

    def example(local: int) -> Example:
        step, row = divmod(local, len(rows))
        epoch, record = order(step * batch_size + int(rows[row]))
        key = np.array([seed, AUGMENT_STREAM, epoch, record], np.uint32)  # a list would be made into this, slowly
        rng = np.random.default_rng(np.random.SeedSequence(key))
        found, decoded, met = read(source, max_pixels, seed=seed, epoch=epoch, record=record)
        return _example(source, found, decoded, transform, rng) | {"substituted": np.int32(found != record)}, met

    return _batches(example, range(steps.start * len(rows), steps.stop * len(rows)), len(rows), loader, bad)


def eval_batches(
    source: Source, transform: Transform, loader: ConfigDict, *, batch_size: int, rows: np.ndarray
) -> Iterator[Batch]:
    """Every record exactly once over all hosts, in the source's order; the last batch is filled up with rows of mask 0.

    Raises UserError naming a record whose image cannot be read; mere warnings of the decoder do not count (images.decode).
    """
    num_batches, max_pixels = -(-len(source) // batch_size), loader.max_pixels

    def example(local: int) -> Example:
        step, row = divmod(local, len(rows))
        record = step * batch_size + int(rows[row])
        if record < len(source):
            return evaluated(record), []
        padding = evaluated(0)
        return {"image": np.zeros_like(padding["image"]), "labels": padding["labels"], "mask": np.float32(0)}, []

    def evaluated(record: int) -> Batch:
        try:
            decoded = decode(source[record], max_pixels, strict=False)
        except images.BadImageError as error:
            raise UserError(f"{source.describe(record)} is {error}. Mend or remove it.") from error
        return _example(source, record, decoded, transform, np.random.default_rng(0))

    return _batches(example, range(num_batches * len(rows)), len(rows), loader, BadRecords())


def _example(source: Source, record: int, decoded: Record, transform: Transform, rng: np.random.Generator) -> Batch:
    image, labels, _ = decoded
    if len(labels) > source.max_labels:
        raise UserError(f"{source.describe(record)} has {len(labels)} labels: set data.max_labels to at least that.")
    if not all(0 <= label < source.num_classes for label in labels):
        raise UserError(
            f"{source.describe(record)} has the labels {labels}, and its source {source.num_classes} classes, from 0 on. Mend "
            "the data, or choose another split: one without labels often has -1."
        )
    padded = np.full(source.max_labels, -1, np.int32)
    padded[: len(labels)] = labels
    return {"image": np.ascontiguousarray(transform(image, rng)), "labels": padded, "mask": np.float32(1)}


def _batches(
    example: Callable[[int], Example], indices: range, rows: int, loader: ConfigDict, bad: BadRecords
) -> Iterator[Batch]:
    """`example` of each index, in batches of `rows`; what is bad is listed when its turn comes.

    A worker is given TOGETHER examples at a time, or as many as divide a batch. They are copied once, into their place in the
    batch, while the processor has them in its cache.
    """
    if not indices:
        return
    together = math.gcd(rows, TOGETHER)
    spec = {name: ((rows, *value.shape), value.dtype) for name, value in example(indices[0])[0].items()}

    def fill(batch: Batch, first: int, start: int) -> list[Met]:
        met = []
        for row in range(start, start + together):
            values, its_bad = example(indices[first + row])
            for name, value in values.items():
                batch[name][row] = value
            met += its_bad
        return met

    batches = Batches(spec, shared=loader.processes)
    with pool(fill, loader.workers, loader.processes) as submit:

        def parts() -> Iterator[tuple[Batch, bool, Future[list[Met]]]]:
            for first in range(0, len(indices), rows):
                batch = batches.new()
                for start in range(0, rows, together):
                    yield batch, start + together == rows, submit(batch, first, start)

        coming = parts()
        ahead = deque(itertools.islice(coming, loader.workers + -(-loader.prefetch // together)))
        while ahead:
            batch, is_whole, part = ahead.popleft()
            bad.add(part.result())
            ahead.extend(itertools.islice(coming, 1))
            if is_whole:
                yield dict(batch)
