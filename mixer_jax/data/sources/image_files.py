"""The bytes of an image file, or why they cannot be read.

Whatever keeps one file from being read makes it an unreadable image, as damage does: it is a link to nowhere, nobody may read it,
it has gone since it was listed, it is a folder or a pipe, a sector of the disk is bad. What keeps every file from being read is a
fault of the environment: a network disk that is gone, too many open files (errors.is_lost_disk).
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
NUMBER_OF = {os.strerror(number): number for number in errno.errorcode}


def read_image(file: Path) -> bytes:
    """Return the bytes of an image file. Raises UnreadableImageError or, when the disk is gone, OSError."""
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
    """Raise the OSError that ArrayRecord has turned into a RuntimeError, such as "pread() failed: Stale file handle; ..."."""
    try:
        yield
    except RuntimeError as error:
        found = re.match(r"\w+\(\) failed: ([^;]+)", str(error))
        if found and found[1] in NUMBER_OF:
            raise OSError(NUMBER_OF[found[1]], found[1], file) from error
        raise
