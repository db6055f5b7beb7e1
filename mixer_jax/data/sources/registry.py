"""Labelled images by record number, from wherever they lie. Nothing is decoded, cropped or shuffled here.

A source is named in a config by a URI (`config.data.source`):

    digits                             the UCI handwritten digits that scikit-learn carries: 1797 real images, 10 classes
    glyphs                             letters and digits drawn from fonts, as many as asked for (glyphs.py)
    folder:DIR                         DIR/SPLIT/CLASS/*.jpg, or DIR/CLASS/*.jpg with an empty split
    tfds:NAME[/CONFIG][:VERSION]       a dataset that TFDS prepared as ArrayRecord files, read without TensorFlow (tfds.py)
    vtab:TASK                          a task of VTAB-1k, from datasets that TFDS prepared likewise (vtab.py)
    records:DIR                        our own shards, DIR/SPLIT/..., made by `python -m mixer_jax prepare` (shards.py)
"""

import hashlib
import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.images import decode as images
from mixer_jax.data.sources.glyphs import Glyphs
from mixer_jax.data.sources.mixture import Mixture
from mixer_jax.data.sources.record import Record, Source
from mixer_jax.data.sources.shards import ShardReader
from mixer_jax.data.sources.tfds import TfdsSource
from mixer_jax.data.sources.vtab import VtabSource
from mixer_jax.errors import UserError


class DigitsSource:
    """`digits`: of the set's 1797 records, in its order, split "test" is every fifth (359), "train" the other 1438.

    The 8 x 8 images of 17 grey levels come as 32 x 32 of 256, bilinear, so that crops of them are fine enough.
    """

    num_classes = 10
    class_names = tuple("0123456789")
    max_labels = 1

    def __init__(self, split: str):
        if split not in ("train", "test"):
            raise UserError(f"digits has no split {split!r}: it has train, test.")
        from sklearn.datasets import load_digits  # heavy, and only some runs need it

        digits = load_digits()
        chosen = (np.arange(len(digits.target)) % 5 == 4) == (split == "test")
        grey = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        self._images = np.stack([images.resize(np.stack([image] * 3, axis=-1), 32, 32) for image in grey])
        self._labels = digits.target[chosen]
        self._split = split

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        return Record(self._images[index], self.labels(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return (int(self._labels[index]),)

    def locate(self, index: int) -> str:
        return f"digits {self._split} record {index}"

    def identity(self) -> str:
        return "digits"


class GlyphsSource:
    """`glyphs`: see glyphs.py."""

    max_labels = 1

    def __init__(self, split: str, num_examples: int):
        if num_examples < 1:
            raise UserError(f"data.num_examples is {num_examples}: glyphs are made on the fly, say how many (at least 1).")
        self._glyphs = Glyphs(split, num_examples)
        self.num_classes = self._glyphs.num_classes
        self.class_names = self._glyphs.class_names

    def __len__(self) -> int:
        return len(self._glyphs)

    def __getitem__(self, index: int) -> Record:
        image, label = self._glyphs[index]
        return Record(image, (label,))

    def labels(self, index: int) -> tuple[int, ...]:
        return (self._glyphs.label(index),)

    def locate(self, index: int) -> str:
        return f"glyphs record {index}"

    def identity(self) -> str:
        return "glyphs"


class FolderSource:
    """`folder:DIR`: one sub-folder a class, numbered in the order of their names."""

    max_labels = 1
    SUFFIXES = (".jpg", ".jpeg", ".png")

    def __init__(self, directory: str, split: str):
        root = Path(directory).expanduser() / split
        if not root.is_dir():
            raise UserError(f"There is no folder {root}. folder:DIR with split SPLIT reads DIR/SPLIT/CLASS/*.jpg|jpeg|png.")
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        if not folders:
            raise UserError(f"{root} has no sub-folders: every class is a sub-folder that holds its images.")
        self._root, self.class_names, self.num_classes = root, tuple(folders), len(folders)
        self._files: list[str] = []
        counts = []
        for folder in folders:
            files = sorted(entry.name for entry in os.scandir(root / folder) if entry.name.lower().endswith(self.SUFFIXES))
            if not files:
                raise UserError(f"{root / folder} holds no image ({', '.join(self.SUFFIXES)}): remove the folder or fill it.")
            self._files += [f"{folder}/{file}" for file in files]
            counts.append(len(files))
        self._labels = np.repeat(np.arange(len(folders), dtype=np.int32), counts)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        return Record((self._root / self._files[index]).read_bytes(), self.labels(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return (int(self._labels[index]),)

    def locate(self, index: int) -> str:
        return str(self._root / self._files[index])

    def identity(self) -> str:
        return hashlib.sha256("\n".join(self._files).encode()).hexdigest()[:16]


class RecordsSource:
    """`records:DIR`: DIR/SPLIT as `prepare` made it; SPLIT may be a slice, such as train[:65000], train[-1000:] or train[99%:].

    `prepare` shuffles, so a slice is a random sample. Percents are rounded to the nearest record.
    """

    SLICE = re.compile(r"([^\[\]]*)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")

    def __init__(self, directory: str, split: str, verify: str):
        parts = self.SLICE.fullmatch(split)
        if not parts:
            raise UserError(f"data.split is {split!r}: it must be NAME or a slice NAME[FROM:TO], in records or percents.")
        name, start, stop = parts.groups()
        self._shards = ShardReader(Path(directory).expanduser() / name, verify)
        self.class_names, self.max_labels = self._shards.class_names, self._shards.max_labels
        self.num_classes = len(self.class_names)
        self._range = range(len(self._shards))[self._place(start) : self._place(stop)]

    def _place(self, text: str | None) -> int | None:
        if text is None or not text.endswith("%"):
            return text if text is None else int(text)
        return round(int(text[:-1]) * len(self._shards) / 100)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> Record:
        entry = self._shards.read(self._range[index])
        return Record(entry.image, entry.labels, entry.partially_decodable)

    def labels(self, index: int) -> tuple[int, ...]:
        return self._shards.labels(self._range[index])

    def locate(self, index: int) -> str:
        return f"{self._shards.locate(self._range[index])} ({self._shards.read(self._range[index]).name})"

    def identity(self) -> str:
        return self._shards.identity


class Subset:
    """Some records of another source, in a given order."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices
        self.num_classes, self.class_names, self.max_labels = source.num_classes, source.class_names, source.max_labels

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self._indices[index])]

    def labels(self, index: int) -> tuple[int, ...]:
        return self._source.labels(int(self._indices[index]))

    def locate(self, index: int) -> str:
        return self._source.locate(int(self._indices[index]))

    def identity(self) -> str:
        return self._source.identity()


def per_class_subset(source: Source, examples_per_class: int, seed: int) -> Subset:
    """`examples_per_class` records of every class, drawn without replacement: a pure function of the source and the seed.

    Reads the labels of the whole source once. Raises UserError when a class has too few.
    """
    records_of = defaultdict(list)
    for index in range(len(source)):
        for label in source.labels(index):
            records_of[label].append(index)
    chosen = []
    for label in range(source.num_classes):
        records = records_of[label]
        if len(records) < examples_per_class:
            raise UserError(
                f"data.examples_per_class is {examples_per_class}, but class {source.class_names[label]!r} has only "
                f"{len(records)} records."
            )
        rng = np.random.default_rng([seed, label])
        chosen.extend(rng.permutation(records)[:examples_per_class])
    return Subset(source, np.array(chosen))


def open_source(config: ConfigDict) -> Source:
    """What a `config.dataset(...)` or `mixture(...)` names. Raises UserError saying what is missing and what mends it."""
    if config.parts:
        parts = {name: open_source(part) for name, part in config.parts.items()}
        return Mixture(parts, [part.weight for part in config.parts.values()])
    kind, _, rest = config.source.partition(":")
    if kind == "digits":
        source = DigitsSource(config.split)
    elif kind == "glyphs":
        source = GlyphsSource(config.split, config.num_examples)
    elif kind == "folder":
        source = FolderSource(rest, config.split)
    elif kind == "tfds":
        source = TfdsSource(rest, config.split, config.data_dir, config.max_labels)
    elif kind == "vtab":
        source = VtabSource(rest, config.split, config.data_dir)
    elif kind == "records":
        source = RecordsSource(rest, config.split, config.verify)
    else:
        known = "digits, glyphs, folder:DIR, tfds:NAME, vtab:TASK or records:DIR"
        raise UserError(f"data.source is {config.source!r}: it must be {known}.")
    if len(source) == 0:
        raise UserError(f"data.source {config.source} has no record in split {config.split!r}.")
    if config.examples_per_class:
        source = per_class_subset(source, config.examples_per_class, config.subset_seed)
    return source
