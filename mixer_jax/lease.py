"""Leases: a process owns a folder, by a lock of the operating system on a file, which ends with the process, however it dies."""

import datetime
import errno
import fcntl
import os
import platform
import weakref
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.storage import naming

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)  # The errors of a disk without file locks.


class HeldError(Exception):
    """The lease belongs to another owner, whom the message names."""


class Lease:
    """The sole right to do something, such as to write in a folder. It ends with `close`, with this object, or with the process.

    A shared lease excludes only those that are not shared.

    Args:
      path: the file that is locked. It is created if it does not exist. It names the owner, unless the lease is shared.
      shared: whether others may have a shared lease at the same time.

    Raises:
      HeldError: another process has the lease.
      UserError: the disk has no file locks, or `path` is a symbolic link.
      OSError: the disk fails.
    """

    def __init__(self, path: Path, shared: bool = False):
        self.owner = f"process {os.getpid()} on {platform.node()} since {datetime.datetime.now().isoformat(sep=' ')}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise UserError(f"{path} is a link, and the file behind it would be overwritten: remove the link.") from error
        self.close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 1000).decode(errors="replace").strip()
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
        with naming(path):
            os.ftruncate(descriptor, 0)
            if not shared:  # One of several owners would be of little use.
                os.write(descriptor, self.owner.encode())
            os.fsync(descriptor)  # Other hosts read the name of the owner.
