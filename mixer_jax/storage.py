"""Reading and writing of files: whole or not at all, with bounds, as JSON; and the user's cache folders.

`open_storage` has one interface for a folder and for gs://BUCKET/PATH. What needs more uses one of the two. The owner of a folder
has a lock of the operating system, for example, and that of a path in a bucket renews an object (lease.py).
"""

import contextlib
import fcntl
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from mixer_jax.bucket import NEVER_WRITTEN, Bucket, Written, is_in_bucket
from mixer_jax.errors import UserError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")  # The name of a file that `write_whole` has not finished.
MAX_JSON_BYTES = 512 * 2**20  # A manifest of 300 million images in shards of 2048 has about 70 MB.


class Storage(Protocol):
    """Named values under a path: the files of a folder, or the objects of a bucket. A name may have slashes.

    A value is written whole or not at all. Each write gives it a new generation, by which a later write can ask that nobody has
    written in between. Raises UserError for what this user may not do; for a folder OSError, and for a bucket EnvironmentFault,
    if it does not answer.

    Attributes:
      url: the absolute path of the folder, or gs://BUCKET/PATH.
    """

    url: str

    def read_whole(self, name: str, max_bytes: int) -> bytes | None:
        """Return a value, or None if there is none. Raises UserError if it has more than `max_bytes`."""

    def read_written(self, name: str) -> Written | None:
        """Return a value and its generation, or None if there is none."""

    def generation(self, name: str) -> bytes | None:
        """Return the generation of a value, or None if there is none."""

    def write(self, name: str, value: bytes) -> None:
        """Write a value, in the place of the one with this name."""

    def write_if_unchanged(self, name: str, value: bytes, generation: bytes = NEVER_WRITTEN) -> bytes | None:
        """Write a value if its generation is still this one, and return the new one, or None if it is another.

        Of several calls with the same generation, one writes. By default, it writes only if there is no value.
        """

    def delete(self, name: str, generation: bytes | None = None) -> None:
        """Delete a value if there is one, and if its generation is still this one."""

    def names(self) -> list[str]:
        """Return the names of all values, sorted."""


def open_storage(path: str) -> Storage:
    """Return the storage in gs://BUCKET/PATH or in a folder, which need not exist yet.

    Raises UserError for another kind of storage, such as s3://, and for a name that no bucket can have.
    """
    return Bucket(path) if is_in_bucket(path) else Folder(Path(path))


class Folder:
    """The files in a folder, as a Storage. Folders are made as they are needed; a link in the place of one is a UserError.

    A condition excludes other writes with a condition, but not those of `write`.
    """

    def __init__(self, path: Path):
        """Take a path. Nothing is read yet."""
        self._path = path.expanduser().absolute()
        self.url = str(self._path)

    def read_whole(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file, or None if there is none. Raises UserError if it has more than `max_bytes` or is no regular file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return read_bytes(self._path / name, max_bytes)
        return None

    def read_written(self, name: str) -> Written | None:
        """Return a file and its generation, or None if there is none."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), open_regular(self._path / name) as file:
            return Written(file.read(), _generation(os.fstat(file.fileno())))
        return None

    def generation(self, name: str) -> bytes | None:
        """Return the generation of a file, or None if there is none."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return _generation((self._path / name).stat())
        return None

    def write(self, name: str, value: bytes) -> None:
        """Write a file, in the place of the one with this name."""
        self._write(name, value)

    def write_if_unchanged(self, name: str, value: bytes, generation: bytes = NEVER_WRITTEN) -> bytes | None:
        """Write a file if its generation is still this one, and return the new one, or None if it is another."""
        if generation == NEVER_WRITTEN:
            with contextlib.suppress(FileExistsError):
                return self._write(name, value, create=True)
            return None
        with self._locked(name, generation) as is_unchanged:
            return self._write(name, value) if is_unchanged else None

    def delete(self, name: str, generation: bytes | None = None) -> None:
        """Delete a file if there is one, and if its generation is still this one."""
        if generation is None:
            (self._path / name).unlink(missing_ok=True)
            return
        with self._locked(name, generation) as is_unchanged:
            if is_unchanged:
                (self._path / name).unlink()

    def names(self) -> list[str]:
        """Return the paths of all files in the folder, relative to it, sorted, without those that are being written."""
        folders = os.walk(self._path)  # Unlike Path.rglob, it passes by folders that are removed meanwhile.
        files = [Path(folder, name) for folder, _, names in folders for name in names if not TEMPORARY.fullmatch(name)]
        return sorted(file.relative_to(self._path).as_posix() for file in files if file.is_file())

    def _write(self, name: str, value: bytes, create: bool = False) -> bytes:
        """Write a file and return its generation. With `create`, raise FileExistsError if there is a file of this name."""
        file = self._path / name
        refuse_links(*(folder for folder in file.parents if self._path in folder.parents))
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(file, create=create) as temporary:
            temporary.write_bytes(value)
            return _generation(temporary.stat())  # The temporary file becomes the file.

    @contextlib.contextmanager
    def _locked(self, name: str, generation: bytes) -> Iterator[bool]:
        """Yield whether a file has this generation. Meanwhile, no other call can change that.

        The lock is one of the file. `write` puts another file in its place, so whoever has waited for the lock finds a new one.
        """
        file = self._path / name
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            yield False
            return
        try:
            with naming(file):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self.generation(name) == _generation(os.fstat(descriptor)) == generation
        finally:
            os.close(descriptor)


def _generation(status: os.stat_result) -> bytes:
    """Return what differs after each write: a file that replaces another one has a new inode or a later time."""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}".encode()


@contextlib.contextmanager
def write_whole(file: Path, folder: Path | None = None, create: bool = False) -> Iterator[Path]:
    """Yield a temporary path. What the block writes there replaces `file` when the block ends without an exception.

    A reader sees the old file or the new one and never a part, also after a kill or a power failure. The temporary file lies in
    `folder`, which must be on the same disk, or beside `file`. Its name is random and new, so that no link can wait under it in a
    folder that somebody else made. If `file` is a link, the link is replaced, and the file that it points at stays as it is. With
    `create`, FileExistsError is raised if there is a file, also if another process has made it in the meantime.
    """
    temporary = (folder or file.parent) / f".{file.name}.{secrets.token_hex(8)}.tmp"
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
    try:
        with naming(file):
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            if create:
                os.link(temporary, file)  # Unlike a renamed file, a link never replaces another file.
            else:
                os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if create:
        temporary.unlink()


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Add the name of the file to an OSError that has none, such as that of a full disk, which occurs while writing."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(file)
        raise


def open_regular(file: str | Path) -> BinaryIO:
    """Open a file for reading. Raises UserError for a folder, a pipe or a device, also behind a link: it may never end."""
    return open(file, "rb", opener=_open_descriptor)


def _open_descriptor(file: str, flags: int) -> int:
    """Return a descriptor of a regular file. Raises UserError for anything else."""
    descriptor = os.open(file, flags | os.O_NONBLOCK)  # Without this flag, opening a pipe would wait for its other end.
    try:
        _check_status(file, os.fstat(descriptor))
    except UserError:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(file: Path, max_bytes: float = math.inf) -> None:
    """Raise UserError if `file` has more than `max_bytes` or is not a regular file, before a library opens it."""
    _check_status(file, file.stat(), max_bytes)


def _check_status(file: str | Path, status: os.stat_result, max_bytes: float = math.inf) -> None:
    """Raise UserError if this is not the status of a regular file of at most `max_bytes`."""
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{file} is no ordinary file: remove it.")
    if status.st_size > max_bytes:
        raise UserError(f"{file} has {status.st_size} bytes; such a file has at most {max_bytes}. It is not what its name says.")


def read_bytes(file: Path, max_bytes: int) -> bytes:
    """Return the content of a file. Raises UserError if it has more than `max_bytes` or is not a regular file."""
    with open_regular(file) as opened:
        status = os.fstat(opened.fileno())
        _check_status(file, status, max_bytes)
        with naming(file):
            return opened.read(status.st_size)  # With a larger number, Python would first take that much memory.


def read_json(file: Path) -> dict:
    """Return what `write_json` wrote, or {} where there is no file. Raises UserError for a damaged one."""
    return parse_json(read_bytes(file, MAX_JSON_BYTES) if file.exists() else b"{}", str(file))


def parse_json(text: bytes, file: str) -> dict:
    """Return the table of names and values in the text of a file of JSON. Raises UserError for a damaged one."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # The file is not JSON or UTF-8, or is nested too deep.
        raise UserError(f"{file} is damaged ({error}). Restore it, or choose another --workdir.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: it holds no table of names and values. Restore it, or choose another --workdir.")
    return content


def read_json_in(storage: Storage, name: str) -> dict:
    """Return a value that is a file of JSON, or {} if there is none. Raises UserError for a damaged one."""
    text = storage.read_whole(name, MAX_JSON_BYTES)
    return parse_json(text, f"{storage.url}/{name}") if text else {}


def write_json(file: Path, content: dict, folder: Path | None = None) -> None:
    """Write a file of JSON, whole or not at all. `folder` is that of the temporary file."""
    with write_whole(file, folder) as temporary:
        temporary.write_text(json_text(content, indent=2) + "\n")


def json_text(content: Any, **options: Any) -> str:
    """Return `content` as JSON, with `options` of json.dumps. A number that is not finite becomes null, as JSON has none."""
    return json.dumps(_without_nan(content), allow_nan=False, **options)


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def refuse_links(*folders: Path) -> None:
    """Raise UserError for a link in the place of a folder in which we write and delete: its target may be anybody's."""
    for folder in folders:
        if folder.is_symlink():
            raise UserError(
                f"{folder} is a link to {os.readlink(folder)!r}, and what lies there would be changed. Remove the link, or put "
                "the folder itself in its place; a link to the whole folder around it is fine."
            )


def cache_folder(name: str) -> Path | None:
    """Return the user's folder `name` for files that can be made again, under XDG_CACHE_HOME or ~/.cache, or None without one.

    There is none without a home. A relative XDG_CACHE_HOME is ignored, as its specification asks. Raises the errors of
    `private_folder`.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return private_folder((given if given.is_absolute() else Path("~/.cache").expanduser()) / "mixer_jax" / name)
    except RuntimeError:  # No home is known.
        return None


def private_folder(folder: Path) -> Path | None:
    """Make a folder for this user alone, and return it, or return None where the user may not write.

    Raises UserError for a folder that others may write in, because what lies in it is believed, and compiled programs among its
    files are run.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UserError(
            f"Others may write in {folder}, and what lies in a cache is believed and run. Make it yours (chown, chmod go-w), or "
            "set XDG_CACHE_HOME to a folder of your own."
        )
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
