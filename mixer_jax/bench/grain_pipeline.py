"""Grain's worker processes on the same examples as ours. The comparison is the evidence for having our own workers.

Source, decoding, augmentation and batch size are the same; the random order is Grain's own. The difference lies in who reads
ahead: each of Grain's workers makes a whole batch, and they hand their batches over in turn; our workers fill parts of the same
batch in place (data/stream/workers.py).
"""

from collections.abc import Iterator

import grain.python as grain
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from mixer_jax.bench.pipelines import Measure, measure_of
from mixer_jax.bench.speed import BATCH
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.source import Record, Source
from mixer_jax.data.stream.loader import HostBatch
from mixer_jax.models.registry import host_transform


def grain_measure(source: Source, config: ConfigDict) -> Measure:
    """Return a function that measures the batches that Grain reads from `source` with `mp_prefetch`."""
    flags.FLAGS.mark_as_parsed()  # Grain reads its own absl flags, which our tools do not parse.

    def make_batches(augment: ConfigDict, cores: int) -> Iterator[HostBatch]:
        transform = train_transform(augment, config.image_size, host_transform(config.model))
        max_pixels, max_labels = config.loader.max_pixels, source.max_labels

        def make_example(record: Record, rng: np.random.Generator) -> HostBatch:
            decoded = record.decode_for_crop(max_pixels)
            labels = np.full(max_labels, -1, np.int32)
            labels[: len(decoded.labels)] = decoded.labels
            image = np.ascontiguousarray(transform(decoded.image, rng))
            return {"image": image, "labels": labels, "mask": np.float32(1), "substituted": np.int32(0)}

        examples = grain.MapDataset.source(source).seed(config.seed).shuffle().repeat().random_map(make_example)
        # Each worker has one thread: several would wait for Python's global lock.
        batches = examples.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=BATCH)).batch(BATCH)
        return iter(batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=cores)))

    return measure_of(make_batches)
