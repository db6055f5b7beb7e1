"""From a source to batches: which record comes when, on which host, with which randomness.

The stream of training batches is a pure function of (source, transform, seed, batch size). Row r of step s is position
s x batch_size + r, and order.py says which record that is. The augmentation of a record depends on (seed, epoch, record) alone.
So a run's place in its data is its step and nothing more: it is taken up exactly on any number of hosts, threads or devices.

An image that cannot be read has a substitute in training (bad_records.py). In evaluation nothing can take its place, because a
figure is over all examples: there it is an error that names the file. A run has then been saved, and goes on once it is mended.

Grain reads ahead in threads. After an error its place is in doubt, so nothing here goes on after one.
"""

import math
from collections.abc import Callable, Iterator

import grain
import numpy as np

from mixer_jax.config import UserError
from mixer_jax.data import images
from mixer_jax.data.augment import Transform
from mixer_jax.data.bad_records import BadRecords, decode
from mixer_jax.data.order import order_of
from mixer_jax.data.record import Record, Source

AUGMENT_STREAM = 1  # of a run's seed; order.py and bad_records.py have the others
TOGETHER = 16  # examples

Batch = dict[str, np.ndarray]
"""image: uint8 [rows, H, W, 3]; labels: int32 [rows, M], classes, padded with -1; mask: float32 [rows], 0 for padding rows.

In training also substituted: int32 [rows], 1 where another record stands for a bad one.
"""


def train_batches(
    source: Source,
    transform: Transform,
    *,
    seed: int,
    batch_size: int,
    rows: np.ndarray,
    steps: range,
    threads: int,
    prefetch: int,
    bad: BadRecords,
) -> Iterator[Batch]:
    """The batches of `steps`, of each the `rows` that this host holds (parallel.local_rows).

    A substitute is augmented as the record in whose place it stands would be: it differs from its own turn in the same epoch.
    """
    order = order_of(source, seed)

    def example(local: int) -> Batch:
        step, row = divmod(local, len(rows))
        epoch, record = order(step * batch_size + int(rows[row]))
        key = np.array([seed, AUGMENT_STREAM, epoch, record], np.uint32)  # a list would be made into this, slowly
        rng = np.random.default_rng(np.random.SeedSequence(key))
        found, decoded = bad.read(seed, epoch, record)
        return _example(source, found, decoded, transform, rng) | {"substituted": np.int32(found != record)}

    return _read(example, range(steps.start * len(rows), steps.stop * len(rows)), len(rows), threads, prefetch)


def eval_batches(
    source: Source, transform: Transform, *, batch_size: int, rows: np.ndarray, threads: int, prefetch: int, max_pixels: int
) -> Iterator[Batch]:
    """Every record exactly once over all hosts, in the source's order; the last batch is filled up with rows of mask 0.

    Raises UserError naming a record whose image cannot be read; mere warnings of the decoder do not count (images.decode).
    """
    num_batches = -(-len(source) // batch_size)

    def example(local: int) -> Batch:
        step, row = divmod(local, len(rows))
        record = step * batch_size + int(rows[row])
        if record < len(source):
            return evaluated(record)
        padding = evaluated(0)
        return {"image": np.zeros_like(padding["image"]), "labels": padding["labels"], "mask": np.float32(0)}

    def evaluated(record: int) -> Batch:
        try:
            decoded = decode(source[record], max_pixels, strict=False)
        except images.BadImageError as error:
            raise UserError(f"{source.describe(record)} is {error}. Mend or remove it.") from error
        return _example(source, record, decoded, transform, np.random.default_rng(0))

    return _read(example, range(num_batches * len(rows)), len(rows), threads, prefetch)


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


def _read(example: Callable[[int], Batch], indices: range, rows: int, threads: int, prefetch: int) -> Iterator[Batch]:
    """`example` of each index, in batches of `rows`.

    Grain hands a thread TOGETHER examples, or as many as divide a batch: what it does for an item in Python, it does for all of
    them. They are copied once, into their place in the batch, while the processor has them in its cache.
    """
    together = math.gcd(rows, TOGETHER)
    begun: dict[int, Batch] = {}  # number -> a batch that is being filled

    def fill(start: int) -> int:
        for place in range(start, start + together):
            number, row = divmod(place, rows)
            values = example(indices[place])
            if number not in begun:
                begun.setdefault(number, {name: np.empty((rows, *value.shape), value.dtype) for name, value in values.items()})
            for name, value in values.items():
                begun[number][name][row] = value
        return start + together

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(1, prefetch // together))
    for filled in grain.MapDataset.range(0, len(indices), together).map(fill).to_iter_dataset(options):  # in their order
        if filled % rows == 0:
            yield begun.pop(filled // rows - 1)
