"""Opens a source of labeled images, which gives records by their number. Sources do not decode, crop or shuffle.

A config names a source by a URI (`config.data.source`):

    digits                             the UCI handwritten digits that scikit-learn carries: 1797 real images, 10 classes
    glyphs                             letters and digits drawn from fonts, as many as asked for (glyphs.py)
    folder:DIR                         DIR/SPLIT/CLASS/IMAGE, or DIR/CLASS/IMAGE with an empty split (class_tree.py)
    tfds:NAME[/CONFIG][:VERSION]       a dataset that TFDS prepared as ArrayRecord files, read without TensorFlow (tfds.py), on a
                                       disk or in a bucket (tfds_copy.py)
    vtab:TASK                          a task of VTAB-1k, from datasets that TFDS prepared as ArrayRecord files (vtab.py)
    records:DIR                        our own shards, DIR/SPLIT/..., made by `python -m mixer_jax prepare` (shards.py); DIR may
                                       be gs://BUCKET/PATH (local_copy.py, range_reader.py)
"""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from mixer_jax.data.sources import digits, glyphs, records, vtab
from mixer_jax.data.sources.digits import DigitsSource
from mixer_jax.data.sources.folder import FolderSource, folders_of_splits
from mixer_jax.data.sources.glyphs import GlyphsSource
from mixer_jax.data.sources.mixture import Mixture
from mixer_jax.data.sources.records import RecordsSource
from mixer_jax.data.sources.source import Source
from mixer_jax.data.sources.subset import per_class_subset
from mixer_jax.data.sources.tfds import TfdsSource
from mixer_jax.data.sources.tfds_copy import names_of_splits
from mixer_jax.data.sources.vtab import VtabSource
from mixer_jax.errors import UserError

# {kind: function from (what follows "kind:" in the URI, the `config.dataset(...)`) to the source}
SOURCES: dict[str, Callable[[str, ConfigDict], Source]] = {
    "digits": lambda _, config: DigitsSource(config.split),
    "glyphs": lambda _, config: GlyphsSource(config.split, config.num_examples),
    "folder": lambda directory, config: FolderSource(directory, config.split),
    "tfds": lambda name, config: TfdsSource(name, config.split, config.data_dir, config.max_labels, config.local_copy),
    "vtab": lambda task, config: VtabSource(task, config.split, config.data_dir, config.local_copy),
    "records": lambda directory, config: RecordsSource(directory, config.split, config.verify, config.local_copy),
}
# {kind: function from the same arguments to the names of all splits}
SPLITS: dict[str, Callable[[str, ConfigDict], tuple[str, ...]]] = {
    "digits": lambda _, config: digits.SPLITS,
    "glyphs": lambda _, config: tuple(glyphs.SPLITS),
    "folder": lambda directory, config: folders_of_splits(Path(directory).expanduser()),
    "tfds": lambda name, config: names_of_splits(name, config.data_dir),
    "vtab": lambda _, config: vtab.SPLITS,
    "records": lambda directory, _: records.split_names(directory),
}

# To read a label of these sources, the whole record must be read, including the image.
LABELS_WITHIN_RECORDS = ("tfds", "vtab")


def has_labels_apart(config: ConfigDict) -> bool:
    """Return whether all labels of a `config.dataset(...)` or `config.mixture(...)` can be read without reading the images.

    This also holds for a subset of a few examples per class, because opening it reads all labels anyway.
    """
    if config.parts:
        return all(has_labels_apart(part) for part in config.parts.values())
    return config.source.partition(":")[0] not in LABELS_WITHIN_RECORDS or config.examples_per_class > 0


def split_names(config: ConfigDict) -> tuple[str, ...] | None:
    """Return the names of all splits of the dataset that a `config.dataset(...)` names.

    Return None if there is no such dataset. `open_source` then raises a UserError that says so.
    """
    kind, _, rest = config.source.partition(":")
    is_folder = kind in ("folder", "records") and "://" not in rest
    if kind not in SPLITS or (is_folder and not Path(rest).expanduser().is_dir()):
        return None
    return SPLITS[kind](rest, config)


def open_source(config: ConfigDict, path: str = "config.data") -> Source:
    """Open the source that a `config.dataset(...)` or `config.mixture(...)` names.

    `path` is the path of this part of the config, for messages. Raises UserError that says what is missing and what to do.
    """
    if config.parts:
        parts = {name: open_source(part, f"{path}.parts.{name}") for name, part in config.parts.items()}
        return Mixture(parts, [part.weight for part in config.parts.values()])
    try:
        return _open_one(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _open_one(config: ConfigDict) -> Source:
    kind, _, rest = config.source.partition(":")
    if kind not in SOURCES:
        known = "digits, glyphs, folder:DIR, tfds:NAME, vtab:TASK or records:DIR"
        raise UserError(f"data.source is {config.source!r}: it must be {known}.")
    if kind == "folder" and "://" in rest:
        raise UserError(f"{config.source}: image files are read from a folder of this machine. In a bucket, use records:gs://...")
    source = SOURCES[kind](rest, config)
    if len(source) == 0:
        raise UserError(f"data.source {config.source} has no record in split {config.split!r}.")
    if config.examples_per_class:
        source = per_class_subset(source, config.examples_per_class, config.subset_seed)
    return source
