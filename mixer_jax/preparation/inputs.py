"""Images to prepare, from where they lie: their names, their classes, their bytes. Making shards of them: prepare.py.

`python -m mixer_jax prepare --from KIND:PATH`:

    folder:DIR           DIR/CLASS/*.jpg, such as ImageNet-21k's tree; with --labels, the images of DIR at any depth
    tars:FILE or DIR     a tar of a tar for each class (ILSVRC2012_img_train.tar, ImageNet-21k's), or a folder of such tars
    tar:FILE             a tar of CLASS/*.jpg; with --labels, of images (ILSVRC2012_img_val.tar)
    zip:FILE             the same in a zip
    webdataset:PATTERN   tars of KEY.jpg with KEY.cls beside it: a class's number or name, or several for a set
    cifar:FILE           cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, its split --split (cifar.py)
    tfds:NAME            what TFDS prepared, its split --split

Listing costs a pass over names and headers; images are then read by place, as many threads as there are at once.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from glob import glob
from pathlib import Path
from typing import Protocol

import numpy as np

from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.data.sources.tfds import TfdsSource
from mixer_jax.errors import UserError
from mixer_jax.preparation import archives, labelling
from mixer_jax.preparation.cifar import CifarInputs
from mixer_jax.preparation.files import Files, FolderFiles, TarFiles, ZipFiles, existing, is_image

GZIP = b"\x1f\x8b"
MAX_PIXELS = 100_000_000  # of one image: 300 MB decoded


@dataclass(frozen=True)
class PreparationSpec:
    """What a command asks for, as far as the shards depend on it."""

    source: str  # KIND:PATH
    split: str
    classes: str = ""
    labels: str = ""
    synsets: str = ""
    under: str = ""  # of an archive, only what lies in this folder
    data_dir: str = ""
    max_side: int = 0  # pixels; an image with a longer side is made smaller and written as JPEG; 0: all bytes are kept
    quality: int = 95  # of those JPEGs
    records_per_shard: int = 2048
    seed: int = 0  # of the order
    drop_near_duplicates_of: tuple[str, ...] = ()  # KIND:PATH of images that must not be among them: references.py
    skip_unreadable: bool = False
    allow_empty_classes: bool = False

    def command(self) -> str:
        """That makes the same shards, without --to."""
        changed = {
            name: value
            for name, value in asdict(self).items()
            if value != getattr(PreparationSpec, name, None) or name == "split"
        }
        words = ["python", "-m", "mixer_jax", "prepare"]
        for name, value in changed.items():
            values = () if value is True else value if isinstance(value, tuple) else (str(value),)
            words += [f"--{'from' if name == 'source' else name.replace('_', '-')}", *values]
        return shlex.join(words)


class Inputs(Protocol):
    """Images by number, in the order that is cheapest to read."""

    class_names: tuple[str, ...]
    ignored: int  # files that are no images

    def __len__(self) -> int: ...

    def name(self, number: int) -> str: ...

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
        """(number, the image file's bytes, labels) of each number; ascending ones are read fastest."""

    def images_of_class(self) -> np.ndarray | None:
        """[K] counts; None where only reading tells."""

    def sha256(self) -> str:
        """Changes when names, sizes, labels or their order do."""


class ListedInputs:
    """Files with labels known before they are read."""

    def __init__(self, files: Files, class_names: tuple[str, ...], labels: list[tuple[int, ...] | None]):
        """A file whose labels are None belongs to another split."""
        self._files, self.class_names, self._labels = files, class_names, labels
        self._chosen = [number for number, of_file in enumerate(labels) if of_file is not None] if None in labels else None
        if self._chosen is not None:
            self._labels = [labels[number] for number in self._chosen]
        self.ignored = files.ignored + len(labels) - len(self._labels)
        too_large = next((number for number, size in enumerate(self._sizes()) if size > archives.MAX_IMAGE_BYTES), None)
        if too_large is not None:
            raise UserError(f"{self.name(too_large)} is larger than {archives.MAX_IMAGE_BYTES} bytes: remove it.")

    def __len__(self) -> int:
        return len(self._labels)

    def _file(self, number: int) -> int:
        return number if self._chosen is None else self._chosen[number]

    def _sizes(self) -> Iterator[int]:
        return (self._files.sizes[self._file(number)] for number in range(len(self)))

    def name(self, number: int) -> str:
        return self._files.names[self._file(number)]

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
        numbers = list(numbers)
        for number, (_, data) in zip(numbers, self._files.read(map(self._file, numbers)), strict=True):
            yield number, data, self._labels[number]

    def images_of_class(self) -> np.ndarray:
        flat = np.fromiter((label for labels in self._labels for label in labels), np.int64)
        return np.bincount(flat, minlength=len(self.class_names))

    def sha256(self) -> str:
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for number, (size, labels) in enumerate(zip(self._sizes(), self._labels, strict=True)):
            digest.update(f"\n{self.name(number)} {size} {labels}".encode())
        return digest.hexdigest()


class TfdsInputs:
    """A split of TFDS; labels come with the images, and an image's name is its number."""

    ignored = 0

    def __init__(self, name: str, split: str, data_dir: str):
        self._source = TfdsSource(name, split, data_dir, max_labels=0)
        self.class_names = self._source.class_names

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
    """What a spec's source holds. Raises UserError saying what was looked for, what is there and what mends it."""
    kind, _, place = spec.source.partition(":")
    if kind in ("cifar", "tfds"):
        if spec.classes or spec.labels or spec.under:
            raise UserError(f"{kind}: has its own classes and labels: leave out --classes, --labels and --under.")
        return TfdsInputs(place, spec.split, spec.data_dir) if kind == "tfds" else CifarInputs(Path(place), spec.split)
    if kind not in LISTERS:
        raise UserError(f"--from {spec.source}: it must be {', '.join(f'{name}:...' for name in [*LISTERS, 'cifar', 'tfds'])}.")
    path, classes = Path(place).expanduser(), labelling.read_classes(spec.classes)
    if kind in ("tar", "tars"):
        _refuse_compressed(path, kind, spec)
    under = spec.under.strip("/") + "/" if spec.under else ""
    files, words = list_files(kind, path, under)
    if words is not None:
        class_names, labels = labelling.resolve(words, classes, str(path))
    elif spec.labels:
        class_names, labels = labelling.by_file(files.names, spec.labels, spec.synsets, classes, spec.split)
    else:
        class_names, labels = labelling.by_folder(files.names, classes)
    return ListedInputs(files, class_names, labels)


def list_files(kind: str, path: Path, under: str) -> tuple[Files, list[list[str]] | None]:
    """Images, each name once, and the words of their classes where they stand beside them."""
    files, words = _webdataset(str(path), under) if kind == "webdataset" else (LISTERS[kind](path, under), None)
    if not files.names:
        raise UserError(f"{kind}:{path} holds no image ({', '.join(FolderSource.SUFFIXES)}) among its {files.ignored} files.")
    if len(set(files.names)) < len(files.names):
        twice = next(name for name, again in zip(sorted(files.names), sorted(files.names)[1:], strict=False) if name == again)
        raise UserError(f"{kind}:{path} holds {twice!r} twice: which one is meant? Pack it anew.")
    return files, words


def _refuse_compressed(path: Path, kind: str, spec: PreparationSpec) -> None:
    """Members of a compressed tar have no place to be read from."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        if file.read(2) != GZIP:
            return
    named = path.suffix in (".gz", ".tgz")  # as gunzip wants it
    tar = path.with_suffix("" if path.suffix == ".gz" else ".tar") if named else Path(f"{path}.tar")
    packed, unpacked = shlex.quote(str(path)), shlex.quote(str(tar))
    unpack = f"gunzip {packed}" if named else f"gunzip < {packed} > {unpacked}"
    command = replace(spec, source=f"{kind}:{tar}").command()
    raise UserError(
        f"{path} is compressed, and images are read by their place. Unpack it first:\n  {unpack}\n  {command} --to ..."
    )


def _folder(path: Path, under: str) -> FolderFiles:
    return FolderFiles(path / under)


def _tar(path: Path, under: str) -> TarFiles:
    files = TarFiles()
    files.add_images(path, archives.tar_members(existing(path)), under)
    return files


def _tars(path: Path, under: str) -> TarFiles:
    files = TarFiles()
    if not path.is_dir():
        files.add_images(path, archives.nested_tar_members(existing(path)), under)
        return files
    for tar in sorted(path.glob("*.tar")):
        files.add_images(tar, archives.tar_members(tar), under, prefix=f"{tar.stem}/")
    return files


def _webdataset(pattern: str, under: str) -> tuple[TarFiles, list[list[str]]]:
    """Images and the words of their .cls files. A sample's members share the name up to the first dot of its last part."""
    tars = sorted(glob(pattern))
    if not tars:
        raise UserError(f"No file matches {pattern}. Quote the pattern: --from 'webdataset:DIR/*.tar'")
    images, classes, words = TarFiles(), TarFiles(), []
    for number, tar in enumerate(tars):
        samples: dict[str, dict[str, archives.Member]] = {}
        for member in archives.tar_members(Path(tar)):
            folder, _, base = member.name.rpartition("/")
            key, _, extension = base.partition(".")
            parts = samples.setdefault(f"{folder}/{key}", {})
            part = "image" if is_image(base) else extension.lower()
            if part in parts:
                raise UserError(
                    f"{tar} holds {member.name!r} twice, or two images of one name: which one is meant? Pack it anew."
                )
            parts[part] = member
        chosen = [parts for parts in samples.values() if "image" in parts and parts["image"].name.startswith(under)]
        images.ignored += len(samples) - len(chosen)
        for parts in chosen:
            if "cls" not in parts or parts["cls"].size > archives.MAX_HEADER_BYTES:
                raise UserError(f"{tar}: {parts['image'].name} has no .cls file beside it with its class, or a huge one.")
        first = len(classes.names)
        images.add(Path(tar), (parts["image"] for parts in chosen), prefix=f"{number:05d}/")
        classes.add(Path(tar), (parts["cls"] for parts in chosen))
        for _, text in classes.read(range(first, len(classes.names))):
            words.append(text.decode(errors="replace").replace(",", " ").split())
    return images, words


LISTERS = {"folder": _folder, "tars": _tars, "tar": _tar, "zip": ZipFiles, "webdataset": _webdataset}
