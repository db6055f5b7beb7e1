"""Reading and writing of files: whole or not at all, with bounds, as JSON; and the user's cache folders."""

import contextlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mixer_jax.errors import UserError

MAX_JSON_BYTES = 512 * 2**20  # A manifest of 300 million images in shards of 2048 has about 70 MB.


@contextlib.contextmanager
def write_whole(file: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path. What the block writes there replaces `file` when the block ends without an exception.

    A reader sees the old file or the new one and never a part, also after a kill or a power failure. The temporary file lies in
    `folder`, which must be on the same disk, or beside `file`. Its name is random and new, so that no link can wait under it in a
    folder that somebody else made. If `file` is a link, the link is replaced, and the file that it points at stays as it is.
    """
    temporary = (folder or file.parent) / f".{file.name}.{secrets.token_hex(8)}.tmp"
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
    try:
        with naming(file):
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
