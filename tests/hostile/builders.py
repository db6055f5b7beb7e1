"""Parts of the builders: what has no end in the place of a file, and a sound input that is changed.

A builder makes an input in an empty folder.
"""

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

TEBIBYTE, MEBIBYTE = 2**40, 2**20
Build = Callable[[Path], object]


def written(name: str, content: Callable[[], bytes]) -> Build:
    def build(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content())

    return build


def endless(name: str) -> dict[str, Build]:
    """Return builders that put something without an end in the place of a file."""

    def replaced(folder: Path, make: Callable[[Path], object]) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        make(file)

    def flood(file: Path) -> None:
        file.touch()
        os.truncate(file, TEBIBYTE)

    return {
        f"{name}: pipe": lambda folder: replaced(folder, os.mkfifo),
        f"{name}: device": lambda folder: replaced(folder, lambda file: file.symlink_to("/dev/zero")),
        f"{name}: flood": lambda folder: replaced(folder, flood),
        f"{name}: folder": lambda folder: replaced(folder, os.mkdir),
    }


def after(sound: Build, changes: dict[str, Build]) -> dict[str, Build]:
    """Return builders that make a sound input, the first of them, and that change a copy of it."""
    made = []

    def make(folder: Path) -> None:
        sound(folder)
        made.append(folder)

    def changed(change: Build) -> Build:
        return lambda folder: (shutil.copytree(made[-1], folder, dirs_exist_ok=True), change(folder))

    return {"sound": make} | {name: changed(change) for name, change in changes.items()}


def mebibytes_of_zeros(count: int, stream) -> bytes:
    """Return what a stream of zlib makes of so many MiB of zeros: the same bytes for each."""
    return (stream.compress(bytes(MEBIBYTE)) + stream.flush(zlib.Z_FULL_FLUSH)) * count
