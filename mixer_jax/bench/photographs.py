"""Images of ImageNet's usual size to measure an input pipeline with, where there is no data: `--source=photographs`."""

from pathlib import Path

import numpy as np
import simplejpeg
from ml_collections import ConfigDict

from mixer_jax.data.images.augment import inception_crop
from mixer_jax.data.images.partial_jpeg import supports_partial_decoding
from mixer_jax.data.images.resize import resize
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Record, Source
from mixer_jax.data.sources.subset import Subset
from mixer_jax.validation import validate

IMAGENET_TRAIN = 1_281_167  # images


def write_photographs(folder: Path, count: int) -> None:
    """Write `count` JPEG files of 500 x 375 pixels at quality 92, in two classes, cut from scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images  # heavy, and only this needs it

    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    for i in range(count):
        image = inception_crop(photographs[i % 2], rng, 0.5, 4 / 3, 4 / 3)
        encoded = simplejpeg.encode_jpeg(resize(image, 375, 500), quality=92, colorsubsampling="420")
        file = folder / f"class_{i % 2}" / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded)


def open_images(config: ConfigDict, source: str, num_images: int, folder: Path, *, repeated: bool = False) -> Source:
    """Return what an input pipeline is measured on: the data of `config`, which is changed to `source` if that is given.

    "photographs" are written into `folder`. They, and with `repeated` any data, are the first `num_images` over and over.
    """
    if source == "photographs":
        write_photographs(folder, 64)
        config.data.update(source=f"folder:{folder}", split="")
    elif source:
        config.data.source = source
    validate(config)
    images = open_source(config.data)
    return Repeated(images, num_images) if source == "photographs" or repeated else images


class Repeated(Subset):
    """The first `count` records over and over, as many as ImageNet has: to shuffle few is slow, 0.3 ms a record among 64.

    They are held in memory, so that no disk is measured, and with what `prepare` would find out about each.
    """

    def __init__(self, source: Source, count: int):
        super().__init__(source, np.arange(IMAGENET_TRAIN) % min(count, len(source)))
        records = [source[i] for i in range(min(count, len(source)))]
        self._records = [
            record._replace(partially_decodable=isinstance(record.image, bytes) and supports_partial_decoding(record.image))
            for record in records
        ]

    def __getitem__(self, index: int) -> Record:
        return self._records[index % len(self._records)]
