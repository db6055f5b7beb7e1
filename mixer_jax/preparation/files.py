"""The image files in a folder, in tars or in a zip: their names, sizes and bytes. They are read without being extracted.

data/sources/class_tree.py decides which files are images, and labeling.py finds their classes.
"""

import itertools
import os
import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.data.sources.class_tree import ImageTree, list_folder
from mixer_jax.data.sources.image_files import read_image
from mixer_jax.errors import UserError, is_lost_disk
from mixer_jax.preparation import archives
from mixer_jax.storage import naming, open_regular

# What zipfile raises for archives that are damaged or contradict themselves. It does not check everything that it reads.
ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, OverflowError, struct.error)


class Files(Protocol):
    """Image files that can be read by their number, which is their index in `names` and `sizes`."""

    tree: ImageTree  # the paths of all files and folders, as far as they are data
    names: list[str]  # paths of the images
    sizes: Sequence[int]  # bytes

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes | UnreadableImageError]]:
        """Yield (number, bytes) of each image. If a single image cannot be read, its error stands in place of the bytes."""


class FolderFiles:
    """The images of a folder, at any depth."""

    def __init__(self, root: Path):
        self._root, self.tree = root, list_folder(root)
        self.names = self.tree.images
        self.sizes = array("q", (_size_of(root / name) for name in self.names))

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes | UnreadableImageError]]:
        """Yield (number, bytes or the error of an unreadable image) of each image."""
        for number in numbers:
            data: bytes | UnreadableImageError
            try:
                data = read_image(self._root / self.names[number])
            except UnreadableImageError as error:
                data = error
            yield number, data


def _size_of(file: Path) -> int:
    """Return the size of a file in bytes, and 0 for a file that cannot be read, such as a link to nowhere."""
    try:
        return os.stat(file).st_size
    except OSError as error:
        if is_lost_disk(error):
            raise
        return 0


class TarFiles:
    """Members of one or more tars, which are read by their offsets."""

    def __init__(self, under: str = ""):
        self.tree = ImageTree(under)
        self.names = self.tree.images
        self.tars: list[Path] = []
        self._tar_numbers, self._offsets, self.sizes = array("l"), array("q"), array("q")

    def add_images(self, tar: Path, members: Iterable[archives.Member], prefix: str = "") -> None:
        """Add the members that are images. `tree` also takes the folders, and counts the files that are no images."""
        self._add_offsets(tar, (member for member in members if self.tree.add(prefix + member.name)))

    def add_all(self, tar: Path, members: Iterable[archives.Member], prefix: str = "") -> None:
        """Add all members, also those that are no images."""
        members = list(members)
        self.names += [prefix + member.name for member in members]
        self._add_offsets(tar, members)

    def _add_offsets(self, tar: Path, members: Iterable[archives.Member]) -> None:
        self.tars.append(tar)
        for member in members:
            self._tar_numbers.append(len(self.tars) - 1)
            self._offsets.append(member.offset)
            self.sizes.append(member.size)

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (number, bytes) of each member. Raises UserError if a tar has become shorter since it was listed."""
        for tar, numbers_in_tar in itertools.groupby(numbers, self._tar_numbers.__getitem__):
            with open_regular(self.tars[tar]) as opened:
                for number in numbers_in_tar:
                    with naming(self.tars[tar]):
                        data = os.pread(opened.fileno(), self.sizes[number], self._offsets[number])
                    if len(data) != self.sizes[number]:
                        raise UserError(f"{self.tars[tar]} became shorter while it was read.")
                    yield number, data


class ZipFiles:
    """The images of a zip, in its folder `under` if that is not empty."""

    def __init__(self, file: Path, under: str):
        require_file(file)
        try:
            self._zip = zipfile.ZipFile(file)
        except ZIP_FAULTS as error:
            raise UserError(f"{file} is no zip, or ends too soon ({error}): copy it again.") from error
        self._file, self.tree = file, ImageTree(under)
        members = archives.zip_members(self._zip, str(file))
        self._members = [member for member in members if self.tree.add(archives.check_name(member.filename, str(file)))]
        self.names, self.sizes = self.tree.images, [member.file_size for member in self._members]

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (number, bytes) of each image. Raises UserError if the zip is damaged."""
        for number in numbers:
            try:
                with self._zip.open(self._members[number]) as member:
                    yield number, member.read(self.sizes[number])
            except ZIP_FAULTS as error:
                if isinstance(error, OSError) and is_lost_disk(error):
                    raise
                raise UserError(f"{self._file} is damaged at {self.names[number]} ({error}): copy it again.") from error


def require_file(file: str | Path) -> Path:
    """Return the path of a file, with `~` expanded. Raises UserError if there is no such file."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {file}.")
    return path
