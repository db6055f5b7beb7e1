"""Checks a host before a run: software, lockfile, bucket, other hosts, devices, disks and clock. One line for each check."""

import argparse
import email.utils
import hashlib
import os
import platform
import queue
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax

from mixer_jax.bucket import is_in_bucket
from mixer_jax.hosts.agreement import agree
from mixer_jax.hosts.board import find_board
from mixer_jax.hosts.joining import join
from mixer_jax.hosts.software import code_digests, versions
from mixer_jax.workdir import check_workdir

LOCKFILE, LOCKS = Path("/tmp/libtpu_lockfile"), Path("/proc/locks")
CHECK_SECONDS = 120.0  # The longest time for one check.
GIB = 2**30
LEAST_BYTES = {tempfile.gettempdir(): 10 * GIB, "/dev/shm": GIB}
MOST_SECONDS_APART = 30.0  # Between this clock and that of the storage.
STORAGE = "https://storage.googleapis.com"


class Failed(Exception):
    """A check has failed. The text says what is wrong, and what to do."""


def examine(arguments: argparse.Namespace) -> int:
    """Run all checks, print a line for each, and return the exit code: 1 if one has failed."""
    checks: dict[str, Callable[[], str]] = {
        "software": check_software,
        "lockfile": check_lockfile,
        "devices": check_devices,
        **{f"room in {path}": partial(check_room, path, least) for path, least in LEAST_BYTES.items()},
    }
    if arguments.workdir:
        checks |= {"folder": partial(check_folder, arguments.workdir), "clock": partial(check_clock, arguments.workdir)}
    # Joining needs the main thread, and must come before anything touches a device.
    results = [_print("hosts", _verdict(partial(check_hosts, arguments)))]
    results += [_print(name, _with_deadline(check)) for name, check in checks.items()]
    return 0 if all(results) else 1


def _print(name: str, verdict: tuple[bool, str]) -> bool:
    """Print the line of a check, and return whether all is well."""
    holds, text = verdict
    print(f"{'ok' if holds else 'FAILED':7}{name}: {text}", flush=True)
    return holds


def _verdict(check: Callable[[], str]) -> tuple[bool, str]:
    """Return whether all is well, and the text of a check."""
    try:
        return True, check()
    except Exception as error:  # Libraries raise many types, and a check that fails must not end the others.
        return False, " ".join(str(error).split()) or type(error).__name__


def _with_deadline(check: Callable[[], str]) -> tuple[bool, str]:
    """Return the verdict of a check, or that it did not answer in time. Its thread is then left alone."""
    answers: queue.SimpleQueue[tuple[bool, str]] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_verdict(check)), daemon=True).start()
    try:
        return answers.get(timeout=CHECK_SECONDS)
    except queue.Empty:
        return False, f"no answer within {CHECK_SECONDS:g} s"


def check_hosts(arguments: argparse.Namespace) -> str:
    """Meet the other hosts, and compare software with theirs. Raises the errors of joining, which name what differs."""
    hosts = join(arguments)
    board = find_board()
    if board is None:
        return "this one alone (--distributed compares with the others)"
    agree("software", _software, arguments.join_timeout)
    count = f"host {board.host} of {board.num_hosts}, all with the same code and versions"
    hosts.leave()
    return count


def _software() -> dict[str, str]:
    return versions() | code_digests() | {"Python": platform.python_version()}


def check_software() -> str:
    """Return the versions of Python and of JAX, and a digest of all versions and of the code."""
    digest = hashlib.sha256(repr(sorted(_software().items())).encode()).hexdigest()
    return f"Python {platform.python_version()}, jax {versions()['jax']}, digest of code and versions {digest[:12]}"


def check_lockfile(lockfile: Path = LOCKFILE, locks: Path = LOCKS) -> str:
    """Return that no process and no file keeps libtpu from the devices. Raises Failed otherwise."""
    if not lockfile.exists():
        return "none"
    if holder := lock_holder(lockfile, locks):
        raise Failed(f"{lockfile} is held by process {holder}, which uses the TPU: end it, or wait for its end")
    raise Failed(f"{lockfile} was left by a process that is gone: rm {lockfile}")


def lock_holder(file: Path, locks: Path) -> str:
    """Return the number of the process that has locked a file, as /proc/locks says, or "" if there is none."""
    inode = str(file.stat().st_ino)
    for line in locks.read_text().splitlines():
        fields = line.replace("-> ", "").split()
        if len(fields) > 5 and fields[5].rpartition(":")[2] == inode:
            return fields[4]
    return ""


def check_devices(lockfile: Path = LOCKFILE, locks: Path = LOCKS, folder: Path = Path("/dev")) -> str:
    """Return the kind and number of this host's devices. Raises Failed if it has a TPU that JAX does not use."""
    if lockfile.exists() and lock_holder(lockfile, locks):
        raise Failed("not tried, because another process uses the TPU")
    devices = jax.local_devices()
    has_tpu = any(folder.glob("accel*")) or any(folder.glob("vfio/[0-9]*"))
    if has_tpu and devices[0].platform != "tpu":
        raise Failed(f"this host has a TPU, and JAX uses {devices[0].device_kind}: pip install -r requirements-tpu.txt")
    return f"{len(devices)} x {devices[0].device_kind}"


def check_room(path: str, least: int) -> str:
    """Return how much room there is. Raises Failed if it is less than `least` bytes."""
    free = shutil.disk_usage(path).free
    if free < least:
        raise Failed(f"{free / GIB:.1f} GiB are free, and a run needs {least / GIB:g}: remove what nobody needs")
    return f"{free / GIB:.1f} GiB free"


def check_folder(workdir: str) -> str:
    """Check the rights in the folder of the run that is to come. In a bucket, write, read, list and delete an object."""
    check_workdir(workdir)
    return f"this host may write and read in {workdir}"


def check_clock(workdir: str, storage: str = STORAGE) -> str:
    """Compare this clock with that of the storage. Raises Failed if they are apart."""
    apart = abs(_storage_time(workdir, storage) - time.time())
    if apart > MOST_SECONDS_APART:
        raise Failed(f"it is {apart:.0f} s from that of the storage of {workdir}: set it (chrony or systemd-timesyncd)")
    return f"within {MOST_SECONDS_APART:g} s of that of the storage"


def _storage_time(workdir: str, storage: str) -> float:
    """Return the time of Cloud Storage, or of the disk that a folder is on, in seconds since 1970."""
    if not is_in_bucket(workdir):
        existing = next(place for place in (Path(workdir).absolute(), *Path(workdir).absolute().parents) if place.is_dir())
        with tempfile.NamedTemporaryFile(dir=existing) as file:
            return os.stat(file.name).st_mtime
    try:
        with urllib.request.urlopen(urllib.request.Request(storage, method="HEAD"), timeout=10) as response:
            date = response.headers["Date"]
    except urllib.error.HTTPError as error:  # The storage answers a request for nothing with an error, and says the time.
        date = error.headers["Date"]
    return email.utils.parsedate_to_datetime(date).timestamp()
