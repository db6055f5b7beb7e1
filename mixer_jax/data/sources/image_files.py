"""Reads the bytes of an image file, and sorts the reasons why a file cannot be read.

A reason that concerns one file makes it an unreadable image, just as damaged content does: it is a broken link, its permissions
forbid reading, it was deleted after it was listed, it is a folder or a pipe, or a sector of the disk is bad. A reason that
concerns all files is a fault of the environment and raises OSError: a network disk was lost, or too many files are open
(errors.is_lost_disk).
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mixer_jax.data.images.decode import UnavailableImageError, UnreadableImageError
from mixer_jax.errors import UserError, is_lost_disk, is_mistake
from mixer_jax.storage import read_bytes

MAX_IMAGE_BYTES = 64 * 2**20
ERROR_NUMBERS = {os.strerror(number): number for number in errno.errorcode}


def read_image(file: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
      UnreadableImageError: the file cannot be read, has more than MAX_IMAGE_BYTES, or is not a regular file.
      UnavailableImageError: reading it failed for a reason that may pass, such as an error of the disk.
      OSError: no file can be read, because the disk was lost or too many files are open.
    """
    try:
        return read_bytes(file, MAX_IMAGE_BYTES)
    except UserError as error:
        raise UnreadableImageError(f"not read ({error})") from error
    except OSError as error:
        if is_lost_disk(error):
            raise
        kind = UnreadableImageError if is_mistake(error) else UnavailableImageError
        raise kind(f"not read ({error.strerror})") from error


@contextlib.contextmanager
def as_os_error(file: str) -> Iterator[None]:
    """Turn a RuntimeError of ArrayRecord that stands for an OSError back into that OSError.

    The message of such a RuntimeError is, for example, "pread() failed: Stale file handle; ...". The OSError names `file`.
    """
    try:
        yield
    except RuntimeError as error:
        found = re.match(r"\w+\(\) failed: ([^;]+)", str(error))
        if found and found[1] in ERROR_NUMBERS:
            raise OSError(ERROR_NUMBERS[found[1]], found[1], file) from error
        raise
