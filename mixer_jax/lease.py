"""Leases: a process owns a folder on a disk or a path in a bucket.

On a disk, a lock of the operating system on a file is the lease. It ends with the process, however that dies. A bucket does not
notice the end of a process, so a lease there must be renewed, and it ends when it has not been renewed for some time.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import platform
import secrets
import sys
import threading
import time
import weakref
from pathlib import Path

from mixer_jax.bucket import NEVER_WRITTEN, Bucket, Written
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.storage import naming

LEASE = ".lease"  # The object in a bucket.
RENEWAL_SECONDS, EXPIRY_SECONDS, POLL_SECONDS = 10.0, 60.0, 1.0
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
        self.owner = _describe_owner()
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


class BucketLease:
    """The sole right to write under a path of a bucket. It ends with `close`, with this object, or when it is not renewed.

    The lease is the object LEASE, which a thread of the owner writes anew every RENEWAL_SECONDS. A process that has seen it
    unchanged for EXPIRY_SECONDS, by its own clock, takes it over. So the clocks of two machines are never compared. Each write
    has a condition, so that one of many processes takes the lease. A former owner that wakes up learns it from `check`.

    Attributes:
      owner: the text that names this process.
    """

    def __init__(self, bucket: Bucket):
        """Take the lease. If there is one, first wait until it is renewed or EXPIRY_SECONDS have passed.

        Raises HeldError if another process has the lease, and the errors of `Bucket.write`.
        """
        self.owner = _describe_owner()
        self._held = _HeldLease(bucket, self.owner)
        self.close = weakref.finalize(self, self._held.end)

    def check(self) -> None:
        """Renew the lease now. Call this before each commit. Raises EnvironmentFault if another process has taken it over."""
        self._held.renew()


def bucket_owner(bucket: Bucket) -> str | None:
    """Return what names the owner of a path in a bucket, or None if there is none. Raises the errors of `Bucket.read`."""
    found = bucket.read_written(LEASE)
    return _field("owner", found) if found else None


class _HeldLease:
    """The state of a lease in a bucket, which the thread that renews it shares with its owner."""

    def __init__(self, bucket: Bucket, owner: str):
        self._bucket, self._owner, self._nonce = bucket, owner, secrets.token_hex(16)
        self._lock, self._is_ended, self._renewals = threading.Lock(), threading.Event(), 0
        found = bucket.read_written(LEASE)
        if found:
            found = self._wait_for_expiry(found)
        generation = bucket.write_if_unchanged(LEASE, self._new_value(), found.generation if found else NEVER_WRITTEN)
        if generation is None:
            raise HeldError(_field("owner", bucket.read_written(LEASE)))
        self._generation = generation
        threading.Thread(target=self._keep_renewing, args=(RENEWAL_SECONDS,), daemon=True).start()

    def _wait_for_expiry(self, found: Written) -> Written | None:
        """Return the lease after EXPIRY_SECONDS, or None when it is gone. Raises HeldError if it is renewed meanwhile."""
        print(
            f"{self._bucket.url} belongs to {_field('owner', found)}. Waiting up to {EXPIRY_SECONDS:.0f} s for a sign of life.",
            file=sys.stderr,
            flush=True,
        )
        end = time.monotonic() + EXPIRY_SECONDS
        while time.monotonic() < end:
            time.sleep(POLL_SECONDS)
            now = self._bucket.read_written(LEASE)
            if now is None:
                return None
            if now.generation != found.generation:
                raise HeldError(_field("owner", now))
        return found

    def renew(self) -> None:
        """Write the lease anew. Raises EnvironmentFault if it belongs to another process, or the bucket does not answer."""
        with self._lock:
            if self._is_ended.is_set():
                return
            generation = self._bucket.write_if_unchanged(LEASE, self._new_value(), self._generation)
            if generation is None:
                # A write that seemed to fail may have taken effect. Then the lease has another generation, and is still ours.
                found = self._bucket.read_written(LEASE)
                if found and _field("nonce", found) == self._nonce:
                    generation = self._bucket.write_if_unchanged(LEASE, self._new_value(), found.generation)
            if generation is None:
                raise EnvironmentFault(
                    f"{self._bucket.url} belongs to {_field('owner', found)} now, because this process had given no sign of life "
                    f"for {EXPIRY_SECONDS:.0f} s. It writes nothing more; the other process goes on."
                )
            self._generation = generation

    def end(self) -> None:
        """Stop renewing, and delete the lease if it is still ours, so that the next process need not wait."""
        with self._lock:
            self._is_ended.set()
            with contextlib.suppress(EnvironmentFault, UserError):  # Then it expires.
                self._bucket.delete(LEASE, self._generation)

    def _keep_renewing(self, every_seconds: float) -> None:
        while not self._is_ended.wait(every_seconds):
            with contextlib.suppress(EnvironmentFault, UserError):  # Before the next commit, `check` raises it, if it lasts.
                self.renew()

    def _new_value(self) -> bytes:
        """Return a value that was never written before."""
        self._renewals += 1
        return json.dumps({"owner": self._owner, "nonce": self._nonce, "renewals": self._renewals}).encode()


def _describe_owner() -> str:
    return f"process {os.getpid()} on {platform.node()} since {datetime.datetime.now().isoformat(sep=' ')}"


def _field(name: str, lease: Written | None) -> str:
    """Return a field of a lease in a bucket, or a word for its owner if the lease is gone or damaged."""
    try:
        return str(json.loads(lease.value)[name]) if lease else "another process"
    except (ValueError, KeyError, TypeError):
        return "another process"
