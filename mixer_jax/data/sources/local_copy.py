"""Copies a split from a bucket to this machine, before a run reads it: the source `records:gs://BUCKET/PATH`.

The order of the examples is one permutation of all records, so each host needs all shards, and each host makes a whole copy.
Where that does not fit, config.data.local_copy=none reads the records from the bucket instead (range_reader.py).

The copy lies in FOLDER/DIGEST, with the digest of the manifest in the bucket, so another version of the data gets another folder.
FOLDER is config.data.local_copy or, by default, the first of these with enough room: the user's cache folder, and a folder in
/dev/shm, which is memory. Only one process of a machine copies. Others of the same machine wait for it, and use the same copy.

A shard is hashed with SHA-256 as its bytes come, compared with the manifest, and then put under its name. After a kill, the same
command keeps the shards that are there and whole, and copies the others.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from mixer_jax.bucket import RANGE_BYTES, Bucket
from mixer_jax.data.sources.bucket_split import explain_missing_object, read_manifest
from mixer_jax.data.sources.manifest import MANIFEST, Manifest, Shard, find_sound, is_uncompressed
from mixer_jax.data.sources.receipts import Receipts, stamp_of
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.lease import HeldError, Lease
from mixer_jax.records import Progress
from mixer_jax.storage import cache_folder, private_folder, write_whole

NO_COPY = "none"  # The value of config.data.local_copy that reads by ranges instead (range_reader.py).
LOCK = ".lock"
SHARED_MEMORY, MEMORY_STATUS = Path("/dev/shm"), Path("/proc/meminfo")
RANGES_AHEAD = 4  # Requests for a shard that are under way while the bytes before them are hashed and written.
FILES_AT_ONCE = 8
TRIES = 3  # To read a shard, until its bytes are those of the manifest.
# What a copy leaves free: on a disk for the run's own files, in memory for the run itself.
FREE_ON_DISK, FREE_IN_MEMORY = 2**30, 2**33
SECONDS_BETWEEN_TRIES = 1.0  # To get the folder while another process copies.
MEBIBYTE, GIBIBYTE = 2**20, 2**30


def copy_split(url: str, folder: str) -> Path:
    """Return the folder of a split on this machine that has the shards of the split gs://BUCKET/PATH/SPLIT, copied if necessary.

    Args:
      url: the URL of the split.
      folder: where copies are made. If it is empty, a folder with enough room is chosen.

    Raises:
      UserError: there is no such split, it may not be read, an object is not what the manifest says, or no folder has room.
      EnvironmentFault: the bucket does not answer, or the disk fails.
    """
    bucket = Bucket(url)
    manifest, text = read_manifest(bucket)
    names, total = [shard.name for shard in manifest.shards], sum(shard.bytes for shard in manifest.shards)
    target = choose_target(bucket.url, hashlib.sha256(text).hexdigest()[:16], names, total, folder)
    with copying(target):
        _copy_missing(bucket, manifest, target)
        with write_whole(target / MANIFEST) as temporary:
            temporary.write_bytes(text)
    return target


def choose_target(url: str, name: str, files: list[str], total: int, folder: str) -> Path:
    """Return the path `name` in a folder that has room for what is missing there. Raises UserError if there is none.

    Args:
      url: what is copied, for the message.
      name: the name of the copy.
      files: the paths of the large files in the copy.
      total: the number of their bytes.
      folder: that of the config, or empty.
    """
    numbers, candidates = [], _candidates(folder)
    there = {candidate: bytes_there(candidate / name, files) for candidate in candidates}
    for candidate in sorted(candidates, key=lambda candidate: -there[candidate]):
        missing, room = total - there[candidate], candidates[candidate]
        if missing <= max(0, room):
            return candidate / name
        numbers.append(f"{max(0, room) / GIBIBYTE:.1f} GiB in {candidate}")
    raise UserError(
        f"A copy of {url} needs {total / GIBIBYTE:.1f} GiB on this machine, and there is room for "
        f"{' and '.join(numbers) or 'none: there is no folder that only you may write in'}. Remove what is not needed there, "
        "such as copies of other data, or name a folder with more room: --config.data.local_copy=DIR. Without a copy, "
        f"--config.data.local_copy={NO_COPY} reads each record from the bucket when it is needed."
    )


def _candidates(folder: str) -> dict[Path, int]:
    """Return {folder for copies: bytes that copies there may take}. `folder` is that of the config, or empty.

    Raises UserError if the folder of the config cannot be made or written in.
    """
    if folder:
        chosen = Path(folder).expanduser().absolute()
        try:
            chosen.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"config.data.local_copy={folder} cannot be made: {error.strerror}. Name another folder.") from error
        if not os.access(chosen, os.W_OK | os.X_OK):
            raise UserError(f"config.data.local_copy={folder}: you may not write there. Name another folder.")
        return {chosen: shutil.disk_usage(chosen).free - FREE_ON_DISK}
    candidates = {}
    if disk := cache_folder("data"):
        candidates[disk] = shutil.disk_usage(disk).free - FREE_ON_DISK
    if SHARED_MEMORY.is_dir() and (memory := private_folder(SHARED_MEMORY / f"mixer_jax-{os.geteuid()}")):
        candidates[memory] = min(shutil.disk_usage(memory).free, _available_memory() - FREE_IN_MEMORY)
    return candidates


def bytes_there(target: Path, files: list[str]) -> int:
    """Return the size of those files that a copy already has."""
    return sum((target / file).stat().st_size for file in files if (target / file).exists())


def _available_memory() -> int:
    """Return how many bytes of memory Linux could give to a program, with those of files that it keeps for later reading."""
    (line,) = [line for line in MEMORY_STATUS.read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def copying(target: Path) -> Iterator[None]:
    """Make a folder, and hold it for this process alone, without what a kill has left. Errors of the disk say what is free."""
    target.mkdir(parents=True, exist_ok=True)
    with _saying_room(target), _hold(target):
        for unfinished in target.glob(".*.tmp"):
            unfinished.unlink()
        yield


@contextlib.contextmanager
def _hold(target: Path) -> Iterator[None]:
    """Hold a folder for this process alone. Wait while another process copies into it."""
    lease, is_said = None, False
    while lease is None:
        try:
            lease = Lease(target / LOCK)
        except HeldError:
            if not is_said:
                print(f"Waiting for another process, which copies into {target}.", file=sys.stderr, flush=True)
            is_said = True
            time.sleep(SECONDS_BETWEEN_TRIES)
    with contextlib.closing(lease):
        yield


@contextlib.contextmanager
def _saying_room(target: Path) -> Iterator[None]:
    """Turn an error of the disk into an EnvironmentFault that says how much room is left."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(target).free / GIBIBYTE
        raise EnvironmentFault(
            f"{error.filename or target} cannot be written: {error.strerror} ({free:.1f} GiB are free). Make room, or name "
            "another folder by --config.data.local_copy=DIR. The same command keeps what is copied."
        ) from error


def _copy_missing(bucket: Bucket, manifest: Manifest, target: Path) -> None:
    """Copy the shards that the folder lacks, in parallel, and show the progress. Raises the errors of `copy_split`."""
    receipts, digests = Receipts(target), {shard.name: shard.sha256 for shard in manifest.shards}
    there = [shard for shard in manifest.shards if (target / shard.name).exists()]
    unknown = [shard for shard in there if not receipts.covers(shard.name, shard.sha256)]
    found = find_sound(target, unknown)
    for name, stamp in found.items():
        receipts.add(name, digests[name], stamp)
    sound = {shard.name for shard in there} - {shard.name for shard in unknown} | found.keys()
    missing = [shard for shard in manifest.shards if shard.name not in sound]
    to_copy, total = [sum(shard.bytes for shard in shards) for shards in (missing, manifest.shards)]
    try:
        with ThreadPoolExecutor(FILES_AT_ONCE * RANGES_AHEAD) as readers:

            def copy(shard: Shard, progress: CopiedBytes) -> None:
                receipts.add(shard.name, shard.sha256, _copy_shard(bucket, shard, target, readers, progress))

            copy_all(bucket.url, target, missing, copy, total - to_copy, total)
    finally:
        receipts.save()


def copy_all(url: str, target: Path, missing: list, copy: Callable[[Any, "CopiedBytes"], None], there: int, total: int) -> None:
    """Call `copy` with each of `missing`, in threads, and say how long it took.

    Args:
      url: what is copied, for the line.
      target: the folder of the copy.
      missing: what is to be copied: shards, or names of files.
      copy: copies one of them, and adds its bytes to the progress.
      there: the number of bytes that the copy has already.
      total: the number of bytes that it will have.
    """
    if not missing:
        return
    progress, begin = CopiedBytes(total, there), time.monotonic()
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        futures = [threads.submit(copy, one, progress) for one in missing]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            progress.is_cancelled = True
            threads.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            progress.close()
    seconds, copied = time.monotonic() - begin, progress.done - there
    rate = copied / MEBIBYTE / max(seconds, 1e-3)
    size = f"{copied / GIBIBYTE:.2f} GiB" if copied >= GIBIBYTE else f"{copied / MEBIBYTE:.1f} MiB"
    print(f"Copied {size} of {url} to {target} in {seconds:.0f} s: {rate:.1f} MiB/s.", file=sys.stderr, flush=True)


class CopiedBytes:
    """The progress of a copy, to which many threads add bytes.

    Attributes:
      done: the number of bytes that the copy has.
      is_cancelled: whether the threads must stop.
    """

    def __init__(self, total: int, first: int):
        self._progress = Progress(total // MEBIBYTE, first // MEBIBYTE, unit="MiB")
        self.done, self._lock, self.is_cancelled = first, threading.Lock(), False

    def add(self, count: int) -> None:
        """Add bytes that were copied. Raises EnvironmentFault if the copy is cancelled."""
        if self.is_cancelled:
            raise EnvironmentFault("The copy was cancelled.")
        with self._lock:
            self.done += count
            self._progress.update(self.done // MEBIBYTE)

    def close(self) -> None:
        """End the line of the progress."""
        self._progress.close()


class _WrongBytesError(Exception):
    """What was read is not the shard of the manifest."""


def _copy_shard(bucket: Bucket, shard: Shard, target: Path, readers: ThreadPoolExecutor, progress: CopiedBytes) -> str:
    """Copy a shard, and return the stamp of its file.

    Bytes may change on their way, so a shard with a wrong digest is read again. Raises UserError if it is wrong every time.
    """
    for _ in range(TRIES):
        try:
            return _try_to_copy(bucket, shard, target / shard.name, readers, progress)
        except _WrongBytesError:
            progress.add(-shard.bytes)
    raise UserError(
        f"{bucket.url}/{shard.name} is not the shard that {MANIFEST} there describes: its SHA-256, or the size of what it holds, "
        "differs. Upload the split again."
    )


def _try_to_copy(bucket: Bucket, shard: Shard, file: Path, readers: ThreadPoolExecutor, progress: CopiedBytes) -> str:
    """Read a shard into a file, and return the stamp of the file. Raises _WrongBytesError, and leaves no file, if it is wrong."""
    digest = hashlib.sha256()
    with write_whole(file) as temporary:
        with open(temporary, "wb") as written:
            for content in _read_ahead(bucket, shard, readers):
                digest.update(content)
                written.write(content)
                progress.add(len(content))
        if digest.hexdigest() != shard.sha256 or not is_uncompressed(temporary):
            raise _WrongBytesError
    return stamp_of(file)


def _read_ahead(bucket: Bucket, shard: Shard, readers: ThreadPoolExecutor) -> Iterator[bytes]:
    """Yield the content of a shard in order, range by range, while the next ranges are read."""
    starts = iter(range(0, shard.bytes, RANGE_BYTES))
    under_way: deque[Future] = deque()
    while True:
        while len(under_way) < RANGES_AHEAD and (start := next(starts, None)) is not None:
            under_way.append(readers.submit(bucket.read, shard.name, start, min(start + RANGE_BYTES, shard.bytes)))
        if not under_way:
            return
        content = under_way.popleft().result()
        if content is None:
            raise UserError(explain_missing_object(bucket, shard.name))
        yield content
