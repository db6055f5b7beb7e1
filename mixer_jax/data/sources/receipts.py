"""Receipts for shards that were hashed whole, in a cache folder of the user: later starts do not read all bytes again."""

import contextlib
import hashlib
import os
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.storage import cache_folder, read_json, write_json


def stamp_of(file: Path) -> str:
    """Return what changes when a file's bytes are written or the file is replaced."""
    status = file.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class Receipts:
    """The shards of a folder that this machine's user has hashed whole."""

    def __init__(self, directory: Path):
        self._directory = directory.resolve()
        folder, name = cache_folder("verified"), hashlib.sha256(os.fsencode(self._directory)).hexdigest()
        self._file = folder / f"{name}.json" if folder else None
        try:
            self._receipts = read_json(self._file) if self._file else {}
        except (UserError, OSError):  # a receipt that cannot be read is none
            self._receipts = {}

    def covers(self, name: str, sha256: str) -> bool:
        """Return whether the file `name` has been hashed to `sha256`, and has not changed since."""
        return self._receipts.get(name) == f"{sha256} {stamp_of(self._directory / name)}"

    def add(self, name: str, sha256: str, stamp: str) -> None:
        """Add a file that was hashed; `stamp` is its stamp from before it was read."""
        self._receipts[name] = f"{sha256} {stamp}"

    def save(self) -> None:
        """Keep the receipts where that is possible. Where it is not, every start hashes anew."""
        if self._file:
            with contextlib.suppress(OSError):
                write_json(self._file, self._receipts)
