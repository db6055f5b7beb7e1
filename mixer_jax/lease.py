"""Who owns a folder: one process at a time, by a lock of the operating system that ends with the process, however it dies."""

import datetime
import errno
import fcntl
import os
import platform
import weakref
from pathlib import Path

from mixer_jax.errors import UserError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)  # the last: a folder on NFS


class HeldError(Exception):
    """The lease belongs to another owner, whom the text names."""


class Lease:
    """The sole right to write in a folder, until `close`, the end of this object or the end of the process.

    `path` is what is locked: a file, which is made and then names the owner, or, where no file may be added, the folder itself.
    Raises HeldError when another has it, and UserError on a disk without locks.
    """

    def __init__(self, path: Path):
        in_file = not path.is_dir()
        self.owner = f"process {os.getpid()} on {platform.node()} since {datetime.datetime.now().isoformat(sep=' ')}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW if in_file else os.O_RDONLY, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise UserError(f"{path} is a link, and the file behind it would be overwritten: remove the link.") from error
        self.close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 1000).decode(errors="replace").strip() if in_file else ""
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
        if in_file:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, self.owner.encode())
            os.fsync(descriptor)  # other hosts read it
