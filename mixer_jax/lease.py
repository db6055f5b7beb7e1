"""Leases: one process at a time owns a folder, by a lock of the operating system that ends with the process, however it dies."""

import datetime
import errno
import fcntl
import os
import platform
import weakref
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.storage import naming

# The errors of a disk without file locks. EBADF is that of a folder on NFS.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


class HeldError(Exception):
    """The lease belongs to another owner, whom the message names."""


class Lease:
    """The sole right to write in a folder. It ends with `close`, with this object, or with the process.

    Args:
      path: what is locked. If it is a folder, that folder is locked and no file is added to it. Otherwise it is a file, which is
        created if it does not exist, and which names the owner.

    Raises:
      HeldError: another process has the lease.
      UserError: the disk has no file locks, or `path` is a symbolic link.
      OSError: the disk fails.
    """

    def __init__(self, path: Path):
        is_file = not path.is_dir()
        self.owner = f"process {os.getpid()} on {platform.node()} since {datetime.datetime.now().isoformat(sep=' ')}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW if is_file else os.O_RDONLY, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise UserError(f"{path} is a link, and the file behind it would be overwritten: remove the link.") from error
        self.close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 1000).decode(errors="replace").strip() if is_file else ""
            self.close()
            raise HeldError(owner or "another process") from error
        except OSError as error:
            self.close()
            if error.errno not in NO_LOCKS:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise UserError(
                f"The disk of {path} has no file locks ({error.strerror}), and without them two processes could write there at "
                "once. Choose a folder on another disk, or mount this one with locks (NFS: without nolock, with lock service)."
            ) from error
        if is_file:
            with naming(path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, self.owner.encode())
                os.fsync(descriptor)  # Other hosts read the name of the owner.
