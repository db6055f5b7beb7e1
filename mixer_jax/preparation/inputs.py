"""The images to prepare: their names, classes and bytes, whatever they are stored in. prepare.py makes shards of them.

`python -m mixer_jax prepare --from KIND:PATH` reads these sources:

    folder:DIR           DIR/SPLIT/CLASS/IMAGE or DIR/CLASS/IMAGE, such as ImageNet-21k's tree; with --labels, images at any depth
    tars:FILE or DIR     a tar that contains a tar for each class (ILSVRC2012_img_train.tar, ImageNet-21k's), or a folder of tars
                         for the classes
    tar:FILE             the same tree as for folder:, in a tar (ILSVRC2012_img_val.tar, with --labels)
    zip:FILE             the same tree in a zip
    webdataset:PATTERN   tars of KEY.jpg with KEY.cls beside it, which has the number or name of a class, or several of them
    cifar:FILE           the split --split of cifar-10-binary.tar.gz or cifar-100-binary.tar.gz
    tfds:NAME            the split --split of a data set that TFDS prepared

listing.py lists the files and their offsets. data/sources/class_tree.py decides which files are images, and which classes their
folders are. labeling.py reads classes from a file of labels or from .cls files. cifar.py reads CIFAR.
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
MAX_PIXELS = 100_000_000  # the most pixels of an image, which take 300 MB when decoded


class Inputs(Protocol):
    """The labeled images of a split. Their numbers follow the order in which they can be read fastest."""

    class_names: tuple[str, ...]
    left_out: Counter[str]  # the number of files that are no images of this split, by their kind

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """Return the name of an image, which is unique in the split."""

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes | UnreadableImageError, tuple[int, ...]]]:
        """Yield (number, bytes of the image file, labels). Ascending numbers are read fastest.

        For an image that cannot be read, the error stands in place of the bytes.
        """

    def images_of_class(self) -> np.ndarray | None:
        """Return the number of images of each class, int64 [K], or None if that is not known before all are read."""

    def sha256(self) -> str:
        """Return a digest that changes if names, sizes, labels or the order of the images change."""


class ListedInputs:
    """Image files whose labels are known before the files are read."""

    def __init__(self, files: Files, class_names: tuple[str, ...], labels: LabelsOfSplit):
        self._files, self.class_names, self._labels = files, class_names, labels
        # The numbers of the files that belong to this split, or None if all do.
        self._chosen = [number for number, label in enumerate(labels) if label is not None] if None in labels else None
        if self._chosen is not None:
            self._labels = [labels[number] for number in self._chosen]
        self.left_out = +(files.tree.left_out + Counter({"of other splits": len(labels) - len(self._labels)}))

    def __len__(self) -> int:
        return len(self._labels)

    def _file(self, number: int) -> int:
        """Return the number in `files` of an image of this split."""
        return number if self._chosen is None else self._chosen[number]

    def _size(self, number: int) -> int:
        return self._files.sizes[self._file(number)]

    def name(self, number: int) -> str:
        """Return the path of an image in its folder or archive."""
        return self._files.names[self._file(number)]

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes | UnreadableImageError, tuple[int, ...]]]:
        """Yield (number, bytes or the error of an unreadable image, labels). A file above MAX_IMAGE_BYTES is unreadable."""
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
        """Return the number of images of each class, int64 [K]."""
        flat = np.fromiter((label for labels in self._labels for label in labels), np.int64)
        return np.bincount(flat, minlength=len(self.class_names))

    def in_order(self, class_names: tuple[str, ...]) -> "ListedInputs":
        """Return the same images with their classes in the order of `class_names`."""
        label_of = {name: label for label, name in enumerate(class_names)}
        new_labels = [label_of[name] for name in self.class_names]
        inputs = copy(self)
        inputs.class_names = class_names
        inputs._labels = [tuple(sorted(new_labels[label] for label in labels)) for labels in self._labels]
        return inputs

    def sha256(self) -> str:
        """Return the SHA-256 of the class names and of the name, size and labels of each image."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for number, labels in enumerate(self._labels):
            digest.update(f"\n{self.name(number)} {self._size(number)} {labels}".encode())
        return digest.hexdigest()


class TfdsInputs:
    """A split that TFDS prepared. Its labels are read with its images, and the name of an image is its number."""

    def __init__(self, name: str, split: str, data_dir: str):
        self._source = TfdsSource(name, split, data_dir, max_labels=0)
        self.class_names, self.left_out = self._source.class_names, Counter()

    def __len__(self) -> int:
        return len(self._source)

    def name(self, number: int) -> str:
        """Return the number of an image as text."""
        return f"{number:09d}"

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
        """Yield (number, bytes of the image file, labels)."""
        for number in numbers:
            record = self._source[number]
            yield number, record.image, tuple(sorted(set(record.labels)))

    def images_of_class(self) -> None:
        """Return None, because the labels are not known before all images are read."""
        return None

    def sha256(self) -> str:
        """Return the SHA-256 of the location and length of the split and of its class names."""
        return hashlib.sha256(json.dumps([self._source.locate(0), len(self), self.class_names]).encode()).hexdigest()


def open_inputs(spec: PreparationSpec) -> Inputs:
    """Open the images to prepare. Raises UserError, which says what was expected, what was found and what to change."""
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


def _advise_under(parent: str) -> Advise:
    """Return a function that says which folders of the source the user can choose, and what to type.

    `parent` is put before the paths of the folders. It is empty or ends with a slash.
    """

    def advise(folders: Sequence[str]) -> str:
        choices = [shlex.join(["--under", parent + folder]) for folder in folders[:SHOWN]]
        return f"Give {' or '.join([*choices, '--labels FILE'])}."

    return advise


def _refuse_compressed(path: Path, kind: str, spec: PreparationSpec) -> None:
    """Raise UserError for a compressed tar, whose members cannot be read by their offsets."""
    if not path.is_file():
        return
    with open_regular(path) as file:
        if file.read(2) != GZIP:
            return
    has_suffix = path.suffix in (".gz", ".tgz")  # gunzip refuses other suffixes.
    tar = path.with_suffix("" if path.suffix == ".gz" else ".tar") if has_suffix else Path(f"{path}.tar")
    packed, unpacked = shlex.quote(str(path)), shlex.quote(str(tar))
    unpack = f"gunzip {packed}" if has_suffix else f"gunzip < {packed} > {unpacked}"
    command = replace(spec, source=f"{kind}:{tar}").command()
    raise UserError(
        f"{path} is compressed, and images are read by their offset. Unpack it first:\n  {unpack}\n  {command} --to ..."
    )


def decode_input(data: bytes | UnreadableImageError, labels: tuple[int, ...], num_classes: int) -> np.ndarray:
    """Return the pixels, uint8 [h, w, 3], of an image that `Inputs.read` yields.

    Raises UserError if the image cannot be read or decoded, or has a label that is not below `num_classes`.
    """
    if not all(0 <= label < num_classes for label in labels):
        raise UserError(f"labels {labels} that are not all below {num_classes}, the number of classes")
    if isinstance(data, UnreadableImageError):
        raise data
    # Evaluation also accepts JPEGs that libjpeg warns of. Training substitutes them.
    return decode(data, MAX_PIXELS, strict=False)
