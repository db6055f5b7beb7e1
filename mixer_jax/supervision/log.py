"""The log of a supervised program: WORKDIR/logs/NAME-UNIXTIME.log, on a disk or in a bucket.

Each start of the program has a file of its own. A file that has grown to MAX_BYTES is followed by another one, because an object
in a bucket can only be replaced as a whole. A start keeps at most MAX_FILES, its first one and the newest.

A disk or a bucket that fails never ends the run: it is said once.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from mixer_jax.bucket import Bucket, is_in_bucket
from mixer_jax.errors import EnvironmentFault, UserError, as_message
from mixer_jax.storage import refuse_links
from mixer_jax.supervision.terminal import write_all

LOGS = "logs"
MAX_BYTES, MAX_FILES = 2**24, 16
UPLOAD_SECONDS = 30.0
LAST_UPLOAD_SECONDS = 15.0  # The end of the program waits this long for the last upload.
MAX_WAITING = 2  # While a bucket does not answer, so many files are kept in memory, the newest ones.


class Log:
    """The log of all starts of one program. It may be written from several threads, and from a handler of signals."""

    def __init__(self, workdir: str, name: str):
        """Write under this name in the folder of a run. Raises UserError for a URL that names no bucket."""
        self._folder, self._name = f"{workdir.rstrip('/')}/{LOGS}", name
        self._is_failure_said = False
        self._lock = threading.RLock()  # A handler of signals may interrupt a write of its own thread.
        self._files: _Files
        if is_in_bucket(workdir):
            self._files = _BucketFiles(Bucket(self._folder), self._saying_failures, self._lock)
        else:
            self._files = _DiskFiles(Path(self._folder))
        self._names: list[str] = []
        self._time = self._size = 0

    def begin(self) -> None:
        """Begin the log of another start."""
        with self._lock:
            self._begin_file([])

    @property
    def path(self) -> str:
        """The path or URL of the newest file."""
        return f"{self._folder}/{self._names[-1]}"

    def write(self, text: bytes) -> None:
        """Add to the log."""
        if not text:
            return
        with self._lock:
            if self._size + len(text) > MAX_BYTES:
                self._begin_file(self._names)
            self._size += len(text)
            with self._saying_failures():
                self._files.append(self._names[-1], text)

    def close(self) -> None:
        """Write what is left. In a bucket, this may take LAST_UPLOAD_SECONDS."""
        with self._saying_failures():
            self._files.close()

    def _begin_file(self, earlier: list[str]) -> None:
        self._time = max(int(time.time()), self._time + 1)  # Each file has a name of its own.
        self._names = [*earlier, f"{self._name}-{self._time}.log"]
        self._size = 0
        if len(self._names) > MAX_FILES:
            with self._saying_failures():
                self._files.remove(self._names.pop(1))

    @contextlib.contextmanager
    def _saying_failures(self) -> Iterator[None]:
        """Print the first error of the disk or the bucket, and go on."""
        try:
            yield
        except (OSError, UserError, EnvironmentFault) as error:
            if not self._is_failure_said:
                self._is_failure_said = True
                text = as_message(f"supervise: the log cannot be kept ({error}). The run goes on.")
                write_all(sys.__stderr__, f"{text}\n".encode(errors="replace"))


class _Files(Protocol):
    """Files that grow, by name. A name that was used before another one is not used again."""

    def append(self, name: str, text: bytes) -> None:
        """Add to a file."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def close(self) -> None:
        """Write what is left."""


class _DiskFiles:
    """Files in a folder, which is made with the first of them."""

    def __init__(self, folder: Path):
        self._folder, self._name = folder, ""
        self._file: BinaryIO | None = None

    def append(self, name: str, text: bytes) -> None:
        if name != self._name:
            refuse_links(self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            self.close()
            self._file, self._name = open(self._folder / name, "ab", buffering=0), name  # noqa: SIM115  It stays open.
        if self._file:
            self._file.write(text)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        if self._file:
            self._file.close()


class _BucketFiles:
    """Objects in a bucket. A thread uploads what has changed, so that a bucket that does not answer never delays the program."""

    def __init__(self, bucket: Bucket, saying_failures: Callable[[], contextlib.AbstractContextManager], lock: threading.RLock):
        self._bucket, self._saying_failures, self._lock = bucket, saying_failures, lock
        self._texts: dict[str, bytearray] = {}
        self._uploaded: dict[str, int] = {}  # How many bytes, by name.
        self._removed: list[str] = []
        self._is_closed = threading.Event()
        self._uploader = threading.Thread(target=self._keep_uploading, daemon=True)
        self._uploader.start()

    def append(self, name: str, text: bytes) -> None:
        with self._lock:
            self._texts.setdefault(name, bytearray()).extend(text)
            for older in list(self._texts)[:-MAX_WAITING]:
                del self._texts[older]

    def remove(self, name: str) -> None:
        with self._lock:
            self._removed.append(name)

    def close(self) -> None:
        self._is_closed.set()
        self._uploader.join(LAST_UPLOAD_SECONDS)

    def _keep_uploading(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_closed.wait(UPLOAD_SECONDS)
            self._upload()

    def _upload(self) -> None:
        with self._lock:
            texts = {name: bytes(text) for name, text in self._texts.items() if len(text) != self._uploaded.get(name)}
            removed, self._removed = self._removed, []
        for name, text in texts.items():
            with self._saying_failures():
                self._bucket.write(name, text)
                self._uploaded[name] = len(text)
        for name in removed:
            with self._saying_failures():
                self._bucket.delete(name)
