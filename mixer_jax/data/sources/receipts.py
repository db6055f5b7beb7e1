"""Receipts for shards that were hashed completely. They lie in the user's cache folder and save later starts the hashing."""

import contextlib
import hashlib
import os
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.storage import cache_folder, read_json, write_json


def stamp_of(file: Path) -> str:
    """Return the inode, size and times of a file, which change if the file is written or replaced."""
    status = file.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class Receipts:
    """The receipts of the shards of one folder, for the current user on this machine."""

    def __init__(self, directory: Path):
        self._directory = directory.resolve()
        folder, name = cache_folder("verified"), hashlib.sha256(os.fsencode(self._directory)).hexdigest()
        self._file = folder / f"{name}.json" if folder else None
        try:
            self._receipts = read_json(self._file) if self._file else {}
        except (UserError, OSError):  # Receipts that cannot be read are ignored, and the shards are hashed again.
            self._receipts = {}

    def covers(self, name: str, sha256: str) -> bool:
        """Return whether the file `name` had the SHA-256 `sha256` when it was last hashed, and has not changed since."""
        return self._receipts.get(name) == f"{sha256} {stamp_of(self._directory / name)}"

    def add(self, name: str, sha256: str, stamp: str) -> None:
        """Add a file that was hashed. `stamp` is its `stamp_of` from before it was read."""
        self._receipts[name] = f"{sha256} {stamp}"

    def save(self) -> None:
        """Write the receipts if that is possible. If it is not, every start hashes the shards again."""
        if self._file:
            with contextlib.suppress(OSError):
                write_json(self._file, self._receipts)
