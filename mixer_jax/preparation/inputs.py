"""Images to prepare, from where they lie: their names, their classes, their bytes. Making shards of them: prepare.py.

`python -m mixer_jax prepare --from KIND:PATH`:

    folder:DIR           DIR/SPLIT/CLASS/IMAGE or DIR/CLASS/IMAGE, such as ImageNet-21k's tree; with --labels, images at any depth
    tars:FILE or DIR     a tar of a tar for each class (ILSVRC2012_img_train.tar, ImageNet-21k's), or a folder of such tars
    tar:FILE             the same as folder: in a tar (ILSVRC2012_img_val.tar, with --labels)
    zip:FILE             the same in a zip
    webdataset:PATTERN   tars of KEY.jpg with KEY.cls beside it: a class's number or name, or several for a set
    cifar:FILE           cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, its split --split (cifar.py)
    tfds:NAME            what TFDS prepared, its split --split

Names and offsets of files: listing.py. Which are images, and of which class: data/sources/class_tree.py. Other ways to give
classes, a file of labels and .cls files: labeling.py.
"""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mixer_jax.data.images.decode import UnreadableImageError, decode
from mixer_jax.data.sources.class_tree import SHOWN, Advise, report_left_out
from mixer_jax.data.sources.image_files import MAX_IMAGE_BYTES
from mixer_jax.data.sources.tfds import TfdsSource
from mixer_jax.errors import UserError
from mixer_jax.preparation.cifar import CifarInputs
from mixer_jax.preparation.files import Files
from mixer_jax.preparation.labeling import LabelsOfSplit, label_by_file, label_by_folder, label_by_text, read_classes
from mixer_jax.preparation.listing import LISTERS, list_files
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.storage import open_regular

GZIP = b"\x1f\x8b"
MAX_PIXELS = 100_000_000  # of one image: 300 MB decoded


class Inputs(Protocol):
    """Images by number, in the order that is cheapest to read."""

    class_names: tuple[str, ...]
    left_out: Counter[str]  # files by their kind that are no images of this split

    def __len__(self) -> int: ...

    def name(self, number: int) -> str: ...

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes | UnreadableImageError, tuple[int, ...]]]:
        """Yield (number, the image file's bytes or what keeps them from being read, labels); ascending numbers are fastest."""

    def images_of_class(self) -> np.ndarray | None:
        """[K] counts; None where only reading tells."""

    def sha256(self) -> str:
        """Changes when names, sizes, labels or their order do."""


class ListedInputs:
    """Files with labels known before they are read."""

    def __init__(self, files: Files, class_names: tuple[str, ...], labels: LabelsOfSplit):
        self._files, self.class_names, self._labels = files, class_names, labels
        self._chosen = [number for number, of_file in enumerate(labels) if of_file is not None] if None in labels else None
        if self._chosen is not None:
            self._labels = [labels[number] for number in self._chosen]
        self.left_out = +(files.tree.left_out + Counter({"of other splits": len(labels) - len(self._labels)}))

    def __len__(self) -> int:
        return len(self._labels)

    def _file(self, number: int) -> int:
        return number if self._chosen is None else self._chosen[number]

    def _size(self, number: int) -> int:
        return self._files.sizes[self._file(number)]

    def name(self, number: int) -> str:
        return self._files.names[self._file(number)]

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes | UnreadableImageError, tuple[int, ...]]]:
        numbers = list(numbers)
        contents = self._files.read(self._file(number) for number in numbers if self._size(number) <= MAX_IMAGE_BYTES)
        for number in numbers:
            if (size := self._size(number)) > MAX_IMAGE_BYTES:
                reason = UnreadableImageError(f"too large: {size} bytes, and an image file has at most {MAX_IMAGE_BYTES}")
                yield number, reason, self._labels[number]
            else:
                _, data = next(contents)
                yield number, data, self._labels[number]

    def images_of_class(self) -> np.ndarray:
        flat = np.fromiter((label for labels in self._labels for label in labels), np.int64)
        return np.bincount(flat, minlength=len(self.class_names))

    def in_order(self, class_names: tuple[str, ...]) -> "ListedInputs":
        """Return the same images with the same classes in another order."""
        number_of = {name: number for number, name in enumerate(class_names)}
        new = [number_of[name] for name in self.class_names]
        inputs = copy(self)
        inputs.class_names = class_names
        inputs._labels = [tuple(sorted(new[label] for label in labels)) for labels in self._labels]
        return inputs

    def sha256(self) -> str:
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for number, labels in enumerate(self._labels):
            digest.update(f"\n{self.name(number)} {self._size(number)} {labels}".encode())
        return digest.hexdigest()


class TfdsInputs:
    """A split of TFDS; labels come with the images, and an image's name is its number."""

    def __init__(self, name: str, split: str, data_dir: str):
        self._source = TfdsSource(name, split, data_dir, max_labels=0)
        self.class_names, self.left_out = self._source.class_names, Counter()

    def __len__(self) -> int:
        return len(self._source)

    def name(self, number: int) -> str:
        return f"{number:09d}"

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
        for number in numbers:
            record = self._source[number]
            yield number, record.image, tuple(sorted(set(record.labels)))

    def images_of_class(self) -> None:
        return None

    def sha256(self) -> str:
        return hashlib.sha256(json.dumps([self._source.locate(0), len(self), self.class_names]).encode()).hexdigest()


def open_inputs(spec: PreparationSpec) -> Inputs:
    """Open what is to be prepared. Raises UserError saying what was looked for, what is there and what mends it."""
    kind, _, name = spec.source.partition(":")
    if kind in ("cifar", "tfds"):
        if spec.classes or spec.labels or spec.under:
            raise UserError(f"{kind}: has its own classes and labels: leave out --classes, --labels and --under.")
        return TfdsInputs(name, spec.split, spec.data_dir) if kind == "tfds" else CifarInputs(Path(name), spec.split)
    if kind not in LISTERS:
        raise UserError(f"--from {spec.source}: it must be {', '.join(f'{known}:...' for known in [*LISTERS, 'cifar', 'tfds'])}.")
    path, classes = Path(name).expanduser(), read_classes(spec.classes)
    if kind in ("tar", "tars"):
        _refuse_compressed(path, kind, spec)
    under = spec.under.strip("/") + "/" if spec.under else ""
    files, texts = list_files(kind, path, under)
    if texts is not None:
        class_names, labels = label_by_text(texts, spec.source, classes)
    elif spec.labels:
        class_names, labels = label_by_file(files.names, spec.labels, spec.synsets, classes, spec.split)
    else:
        advise = _advise_under(under if kind == "folder" else "")
        class_names, labels = label_by_folder(files.tree, spec.source, spec.split, classes, advise, tars=kind == "tars")
    inputs = ListedInputs(files, class_names, labels)
    report_left_out(spec.source, inputs.left_out)
    return inputs


def _advise_under(above: str) -> Advise:
    """Return what says which folders of the source could be given; `above` comes before their paths."""

    def advise(folders: Sequence[str]) -> str:
        choices = [shlex.join(["--under", above + folder]) for folder in folders[:SHOWN]]
        return f"Give {' or '.join([*choices, '--labels FILE'])}."

    return advise


def _refuse_compressed(path: Path, kind: str, spec: PreparationSpec) -> None:
    """Raise UserError for a compressed tar: its members have no offset to be read from."""
    if not path.is_file():
        return
    with open_regular(path) as file:
        if file.read(2) != GZIP:
            return
    named = path.suffix in (".gz", ".tgz")  # as gunzip wants it
    tar = path.with_suffix("" if path.suffix == ".gz" else ".tar") if named else Path(f"{path}.tar")
    packed, unpacked = shlex.quote(str(path)), shlex.quote(str(tar))
    unpack = f"gunzip {packed}" if named else f"gunzip < {packed} > {unpacked}"
    command = replace(spec, source=f"{kind}:{tar}").command()
    raise UserError(
        f"{path} is compressed, and images are read by their offset. Unpack it first:\n  {unpack}\n  {command} --to ..."
    )


def decode_input(data: bytes | UnreadableImageError, labels: tuple[int, ...], num_classes: int) -> np.ndarray:
    """Return the pixels, uint8 [h, w, 3], of what `Inputs.read` gives. Raises UserError for what cannot be prepared."""
    if not all(0 <= label < num_classes for label in labels):
        raise UserError(f"labels {labels} that are not all below {num_classes}, the number of classes")
    if isinstance(data, UnreadableImageError):
        raise data
    return decode(data, MAX_PIXELS, strict=False)  # as evaluation takes it; training substitutes what is worse
