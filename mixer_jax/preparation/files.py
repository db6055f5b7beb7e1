"""Image files where they lie, in a folder, tars or a zip: their names, sizes and bytes. Their classes: labeling.py.

Only .jpg, .jpeg and .png count as images, in any case; other files are left alone and counted.
"""

import os
import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.errors import UserError
from mixer_jax.preparation import archives

# What zipfile raises on damaged or lying archives: it does not check all that it reads.
ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, OverflowError, struct.error)


class Files(Protocol):
    """Where images lie."""

    names: list[str]
    sizes: Iterable[int]
    ignored: int

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]: ...


def is_image(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.lower().endswith(FolderSource.SUFFIXES) and not base.startswith("._")  # those are macOS's own


class FolderFiles:
    """The images of a folder, at any depth; links are followed, as they are the user's own."""

    def __init__(self, root: Path):
        if not root.is_dir():
            raise UserError(f"There is no folder {root}.")
        self._root, self.names, self.sizes, self.ignored = root, [], array("q"), 0
        seen = set()
        for folder, folders, files in os.walk(root, followlinks=True):
            folders.sort()
            if (real := os.path.realpath(folder)) in seen:
                raise UserError(f"{folder} is reached twice, through a link: remove the link, its images would count twice.")
            seen.add(real)
            for file in sorted(files):
                name = os.path.relpath(os.path.join(folder, file), root)
                if not name.isprintable():
                    raise UserError(f"{root} holds {name!r}: rename it, names must be plain text.")
                if is_image(name):
                    self.names.append(name)
                    self.sizes.append(os.stat(root / name).st_size)
                else:
                    self.ignored += 1

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for number in numbers:
            yield number, (self._root / self.names[number]).read_bytes()


class TarFiles:
    """Members of one or more tars, by file and offset."""

    def __init__(self):
        self.names: list[str] = []
        self.tars: list[Path] = []
        self._tar, self._offsets, self.sizes, self.ignored = array("l"), array("q"), array("q"), 0

    def add(self, tar: Path, members: Iterable[archives.Member], prefix: str = "") -> None:
        self.tars.append(tar)
        for member in members:
            self.names.append(prefix + member.name)
            self._tar.append(len(self.tars) - 1)
            self._offsets.append(member.offset)
            self.sizes.append(member.size)

    def add_images(self, tar: Path, members: Iterable[archives.Member], under: str = "", prefix: str = "") -> None:
        self.add(tar, (member for member in members if self._wanted(member.name, under)), prefix)

    def _wanted(self, name: str, under: str) -> bool:
        wanted = is_image(name) and name.startswith(under)
        self.ignored += not wanted
        return wanted

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        opened, descriptor = None, None
        try:
            for number in numbers:
                if self._tar[number] != opened:
                    if descriptor is not None:
                        os.close(descriptor)
                    opened, descriptor = self._tar[number], os.open(self.tars[self._tar[number]], os.O_RDONLY)
                data = os.pread(descriptor, self.sizes[number], self._offsets[number])
                if len(data) != self.sizes[number]:
                    raise UserError(f"{self.tars[opened]} became shorter while it was read.")
                yield number, data
        finally:
            if descriptor is not None:
                os.close(descriptor)


class ZipFiles:
    """Members of a zip."""

    def __init__(self, file: Path, under: str):
        require_file(file)
        try:
            self._zip = zipfile.ZipFile(file)
        except ZIP_FAULTS as error:
            raise UserError(f"{file} is no zip, or ends too soon ({error}): copy it again.") from error
        members = archives.zip_members(self._zip, str(file))
        self._file = file
        self._members = [member for member in members if is_image(member.filename) and member.filename.startswith(under)]
        self.ignored = len(members) - len(self._members)
        self.names = [archives.check_name(member.filename, str(file)) for member in self._members]
        self.sizes = [member.file_size for member in self._members]

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for number in numbers:
            try:
                with self._zip.open(self._members[number]) as member:
                    yield number, member.read(self.sizes[number])
            except ZIP_FAULTS as error:
                raise UserError(f"{self._file} is damaged at {self.names[number]} ({error}): copy it again.") from error


def require_file(file: str | Path) -> Path:
    """Return the path of a file that is there. Raises UserError where it is not."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {file}.")
    return path
