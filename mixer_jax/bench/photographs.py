"""Images of ImageNet's usual size, to measure an input pipeline without any data set: `--source=photographs`."""

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

NUM_IMAGENET_TRAIN = 1_281_167


def write_photographs(folder: Path, count: int) -> None:
    """Write `count` JPEG files in two classes: random crops of scikit-learn's two photographs, 500 x 375 pixels, quality 92."""
    from sklearn.datasets import load_sample_images  # It is heavy, and only this function needs it.

    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    for i in range(count):
        image = inception_crop(photographs[i % 2], rng, 0.5, 4 / 3, 4 / 3)
        encoded = simplejpeg.encode_jpeg(resize(image, 375, 500), quality=92, colorsubsampling="420")
        file = folder / f"class_{i % 2}" / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded)


def open_images(config: ConfigDict, source: str, num_images: int, folder: Path, *, repeated: bool = False) -> Source:
    """Return the images that an input pipeline is measured on. Changes `config` to them.

    Args:
        config: Its data are used if `source` is empty.
        source: A data source as in config.data.source, or "photographs".
        num_images: Photographs are the first `num_images`, over and over.
        folder: Where photographs are written.
        repeated: Treat any data like photographs: use the first `num_images`, over and over.

    Raises UserError for an impossible config or data that cannot be opened.
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
    """The first `count` records of a source, over and over, as many as ImageNet has.

    There are so many because shuffling few is slow: 0.3 ms a record among 64. The records are held in memory, so that no disk is
    measured. `prepare` would note which of them can be decoded partially, so that is noted here too.
    """

    def __init__(self, source: Source, count: int):
        super().__init__(source, np.arange(NUM_IMAGENET_TRAIN) % min(count, len(source)))
        records = [source[i] for i in range(min(count, len(source)))]
        self._records = [
            record._replace(partially_decodable=isinstance(record.image, bytes) and supports_partial_decoding(record.image))
            for record in records
        ]

    def __getitem__(self, index: int) -> Record:
        return self._records[index % len(self._records)]
