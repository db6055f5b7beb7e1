"""The training images of a run, which are in no text file of it.

They are computed from the run's config by the functions that training uses. sections.py writes the text about them.
"""

import numpy as np

from mixer_jax.classes import describe
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.models.registry import pixel_permutation
from mixer_jax.pages.parts import Picture
from mixer_jax.pages.pictures import labeled
from mixer_jax.report.runs import Run


def training_images(run: Run, count: int) -> list[Picture]:
    """Return the first `count` images of the run's training stream, but at most a batch.

    The images are augmented and permuted as in training, before mixup, which runs on the device.
    """
    config = run.config
    transform = train_transform(config.augment, config.image_size, pixel_permutation(config.model))
    source = open_source(config.data)
    batches = train_batches(
        source, transform, config.loader, seed=config.seed,
        batch_size=config.batch_size, batch_indices=np.arange(min(count, config.batch_size)), steps=range(1),
        unreadable=UnreadableImages(),
    )  # fmt: skip
    batch = next(iter(batches))
    names = (_class_names(source, labels) for labels in batch["labels"])
    return [labeled(image, name) for image, name in zip(batch["image"], names, strict=True)]


def _class_names(source: Source, labels: np.ndarray) -> str:
    return ", ".join(describe(source.class_names[label]) for label in labels if label >= 0)
