"""The files of a run in a bucket, apart from its checkpoints. They are written in a folder of this machine, and uploaded whole.

An object can only be replaced as a whole, and only about once a second. So what has changed is uploaded every UPLOAD_SECONDS, and
when `upload` is called.
"""

import contextlib
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from mixer_jax.bucket import Bucket, is_in_bucket
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.storage import Folder, read_bytes, write_whole

UPLOAD_SECONDS = 30.0
MAX_BYTES = 2**30  # Of a file that is copied from a bucket. metrics.jsonl has about ten million lines then.
FOLDERS = ("tensorboard", "predictions", "profile")
TOP_LEVEL = re.compile(r".+\.(json|jsonl|txt)")

Stamp = tuple[int, int, int]


def is_plain(name: str) -> bool:
    """Return whether an object may become a file of this name in a folder: the name leads nowhere else, and hides nothing."""
    parts = name.split("/")
    return "\0" not in name and not any(part == "" or part.startswith(".") for part in parts)


def is_file_of_run(name: str) -> bool:
    """Return whether a name is that of a file which a run has beside its checkpoints."""
    folder, slash, _ = name.partition("/")
    return is_plain(name) and (folder in FOLDERS if slash else bool(TOP_LEVEL.fullmatch(name)))


def copy_files(bucket: Bucket, folder: Path, names: Collection[str] = ()) -> None:
    """Copy the files of the run in a bucket, except profiles, to a folder of this machine. If there are `names`, copy only these.

    Raises the errors of `Bucket.read_whole`.
    """
    chosen = names or [name for name in bucket.names() if is_file_of_run(name) and not name.startswith("profile/")]
    for name in chosen:
        content = bucket.read_whole(name, MAX_BYTES)
        if content is not None:  # It may be gone by now.
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with write_whole(folder / name) as temporary:
                temporary.write_bytes(content)


@contextlib.contextmanager
def local_files(run: str, names: Collection[str] = ()) -> Iterator[Path]:
    """Yield a run's folder or, for gs://BUCKET/RUN, a copy of its files in a temporary folder with the name of the run.

    If there are `names`, only these files are copied. The messages of UserErrors get the name of the bucket in place of that of
    the copy. Raises the errors of `copy_files`.
    """
    if not is_in_bucket(run):
        yield Path(run)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / run.rstrip("/").rpartition("/")[2]
        copy.mkdir()
        copy_files(Bucket(run), copy, names)
        try:
            yield copy
        except UserError as error:
            raise UserError(str(error).replace(str(copy), run)) from error


class Mirror:
    """A folder of this machine whose files are also in a bucket."""

    def __init__(self, bucket: Bucket, folder: Path, check: Callable[[], None]):
        """Copy the files of the run in the bucket into an empty folder, and keep uploading what changes there.

        `check` raises an error if this process may no longer write in the bucket. Raises the errors of `copy_files`.
        """
        self._bucket, self._folder, self._check = bucket, folder, check
        self._lock, self._is_closed = threading.Lock(), threading.Event()
        copy_files(bucket, folder)
        self._uploaded = self._stamps()
        threading.Thread(target=self._keep_uploading, daemon=True).start()

    def upload(self) -> None:
        """Upload all files that have changed. Raises the errors of `Bucket.write` and of the function `check`."""
        with self._lock:
            stamps = {} if self._is_closed.is_set() else self._stamps()
            changed = [name for name in stamps if stamps[name] != self._uploaded.get(name)]
            if changed:
                self._check()
            for name in changed:
                self._bucket.write(name, read_bytes(self._folder / name, sys.maxsize))
                self._uploaded[name] = stamps[name]

    def remove(self, name: str) -> None:
        """Delete the object of a file that was removed. The object of a file that is gone without this call stays."""
        with self._lock:
            self._check()
            self._bucket.delete(name)
            self._uploaded.pop(name, None)

    def close(self) -> None:
        """Upload nothing more, and wait until an upload that is under way has ended."""
        with self._lock:
            self._is_closed.set()

    def _stamps(self) -> dict[str, Stamp]:
        """Return what tells that a file has changed, by name."""
        stamps = {}
        for name in filter(is_file_of_run, Folder(self._folder).names()):
            with contextlib.suppress(FileNotFoundError):  # It was removed meanwhile.
                status = (self._folder / name).stat()
                stamps[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return stamps

    def _keep_uploading(self) -> None:
        """Upload what has changed every UPLOAD_SECONDS. The errors are printed: `upload` raises them if they last."""
        is_said = False
        while not self._is_closed.wait(UPLOAD_SECONDS):
            try:
                self.upload()
                is_said = False
            except (EnvironmentFault, UserError, OSError) as error:
                if not is_said:
                    print(f"{error} The run goes on until its next checkpoint.", file=sys.stderr, flush=True)
                is_said = True
