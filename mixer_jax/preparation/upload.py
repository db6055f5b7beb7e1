"""Moves a split to a bucket while it is made, shard by shard, so that a machine that is lost takes little of it along.

The split is made in a temporary folder of this machine, which at the end has the files of gs://BUCKET/PATH/SPLIT, but of each
shard the ends alone. A shard is uploaded as it is made, then its row, and what lies between its ends is then a hole in the file,
which takes no room. The ends suffice to find out whether a shard is the one of its row, and they hold the labels, which the
manifest counts. So the manifest is made as on a disk, and is uploaded last.

The bucket has the .preparing/ that a folder has (unfinished.py), without the locks. plan.json is created only if there is none,
so of two preparations with different options the second is refused. Two with the same options do no harm to each other: they make
the same bytes, and each object is written whole or not at all.
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from mixer_jax.bucket import Bucket, TooShortError
from mixer_jax.data.sources.manifest import DUPLICATES, END_BYTES, MANIFEST, PLAN, UNFINISHED, Shard, ends_sha256
from mixer_jax.data.sources.record_index import INDEX
from mixer_jax.data.sources.shards import read_labels
from mixer_jax.errors import UserError
from mixer_jax.preparation.indexing import entries_file
from mixer_jax.preparation.near_duplicates.pairs_page import PAGE
from mixer_jax.preparation.unfinished import Plan, read_rows, refuse_other, row_file
from mixer_jax.records import Progress
from mixer_jax.storage import MAX_JSON_BYTES, read_bytes, write_whole

PLAN_NAME = f"{UNFINISHED}/{PLAN}"
BESIDE_SHARDS = (PAGE, DUPLICATES, INDEX, MANIFEST)  # The files of a split that are no shards, in their order.
REQUESTS_AT_ONCE = 32
INDEX_BYTES = 32  # About so many bytes of an image stand at the end of its shard: its position, and its labels.
BYTES_MORE = 4  # The end of a shard is read again, this many times as long, if it lacks some of the labels.


class Upload:
    """A split in a bucket, and the temporary folder in which it is made.

    All methods raise the errors of `Bucket`.

    Attributes:
      target: the folder, whose name is that of the split.
    """

    def __init__(self, bucket: Bucket, target: Path):
        self._bucket, self.target = bucket, target
        self._names: list[str] = []  # those of the objects that the bucket had at the beginning
        self._before: dict[str, bytes] = {}  # the files beside the shards that it had

    def fetch(self) -> None:
        """Copy what the bucket has beside the shards and their rows, and make an empty file for each shard."""
        self._names = self._bucket.names()
        self.target.mkdir(parents=True)
        if any(name.startswith(f"{UNFINISHED}/") for name in self._names):
            (self.target / UNFINISHED).mkdir()
        for name in self._names:
            if name in (*BESIDE_SHARDS, PLAN_NAME):
                self._before[name] = self._copy(name)
            elif name.endswith(".array_record") and "/" not in name:
                (self.target / name).touch()

    def fetch_shards(self, plan: Plan, numbers: range) -> None:
        """Copy the rows of shards, their parts of the index, and the ends of those that have the size in their row."""
        if not (self.target / MANIFEST).exists():
            pattern = rf"{re.escape(UNFINISHED)}/shard-(\d{{6,18}})\.(json|index)"
            found = [re.fullmatch(pattern, name) for name in self._names]
            _do_all(self._copy, [match[0] for match in found if match and int(match[1]) in numbers])
        shards, there = read_rows(self.target, plan, numbers), set(self._names)
        _do_all(self._fetch_ends, [shard for shard in shards.values() if shard.name in there], "shard")

    def claim(self, plan: Plan) -> None:
        """Upload plan.json. Raises UserError if another preparation has done so since `fetch`, with other options."""
        file = self.target / PLAN_NAME
        text = read_bytes(file, MAX_JSON_BYTES)
        if text == self._before.get(PLAN_NAME):
            return
        if PLAN_NAME not in self._before:
            if self._bucket.write_if_unchanged(PLAN_NAME, text):
                return
            self._copy(PLAN_NAME)
            refuse_other(self.target, plan.made)
            _write(file, text)
        self._bucket.write(PLAN_NAME, text)

    def move(self, number: int, shard: Shard) -> None:
        """Upload a shard, its part of the index, and last its row. Of the shard, only the ends stay in the folder."""
        content = read_bytes(self.target / shard.name, shard.bytes)
        self._bucket.write(shard.name, content)
        for file in (entries_file(self.target, number), row_file(self.target, number)):
            self._bucket.write(f"{UNFINISHED}/{file.name}", read_bytes(file, MAX_JSON_BYTES))
        _keep_ends(self.target, shard, lambda start, stop: content[start:stop])

    def finish(self) -> None:
        """Upload what is made of the files beside the shards, the manifest last. Remove .preparing/ if there is a manifest."""
        for name in BESIDE_SHARDS:
            content = read_bytes(self.target / name, MAX_JSON_BYTES) if (self.target / name).exists() else None
            if content is not None and content != self._before.get(name):
                self._bucket.write(name, content)
        if self._bucket.read(MANIFEST, 0, 1):  # It is ours, or that of another machine, which has joined the parts.
            _do_all(self._bucket.delete, [name for name in self._bucket.names() if name.startswith(f"{UNFINISHED}/")])

    def _copy(self, name: str) -> bytes:
        """Copy an object to the folder, and return it."""
        content = self._bucket.read_whole(name, MAX_JSON_BYTES) or b""
        _write(self.target / name, content)
        return content

    def _fetch_ends(self, shard: Shard) -> None:
        """Copy the ends of a shard, or leave its empty file if the object has another size than in `shard`."""
        with contextlib.suppress(TooShortError):
            if self._bucket.read(shard.name, shard.bytes, shard.bytes + 1):
                return
        with contextlib.suppress(TooShortError):
            _keep_ends(self.target, shard, lambda start, stop: self._bucket.read(shard.name, start, stop) or b"")


def _keep_ends(target: Path, shard: Shard, read: Callable[[int, int], bytes]) -> None:
    """Write a file of the size of a shard, with the ends of the shard and zeros between.

    Args:
        target: The folder of the split.
        shard: The row of the shard. If the ends are not those of the row, the file may lack some of the labels.
        read: Returns the bytes of the shard from a first to before a second position.
    """
    file, end_bytes = target / shard.name, 2 * END_BYTES + INDEX_BYTES * shard.records
    head = read(0, min(END_BYTES, shard.bytes))
    while True:
        start = max(0, shard.bytes - end_bytes)
        with write_whole(file, target / UNFINISHED) as temporary, open(temporary, "rb+") as opened:
            opened.write(head)
            opened.seek(start)
            opened.write(read(start, shard.bytes))
        if start == 0 or ends_sha256(file) != shard.ends_sha256 or _has_labels(file, shard):
            return
        end_bytes *= BYTES_MORE


def _has_labels(file: Path, shard: Shard) -> bool:
    """Return whether the labels of a shard can be read from the file."""
    try:
        read_labels(str(file), shard.records)
    except (UserError, RuntimeError, OSError):  # ArrayRecord has found zeros.
        return False
    return True


def _write(file: Path, content: bytes) -> None:
    with write_whole(file) as temporary:
        temporary.write_bytes(content)


def _do_all(work: Callable, items: Iterable, unit: str = "") -> None:
    """Call `work` with each item, in threads, and show the progress if a unit is given. Raises the first error."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        futures = [pool.submit(work, item) for item in items]
        progress = Progress(len(futures), 0, unit=unit) if unit and futures else None
        try:
            for number, future in enumerate(as_completed(futures)):
                future.result()
                if progress:
                    progress.update(number + 1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            if progress:
                progress.close()
