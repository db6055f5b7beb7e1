"""What a prepared split is: its manifest, and the checks that its shards are those of the manifest. Their contents: shards.py.

DIR/SPLIT/manifest.json has the classes, how the split was made and a row for each shard. When a split is opened, a shard that is
missing, has another size, is in no row or has another digest is refused by name. There are two ways to look at digests:

`full` hashes every shard with SHA-256, in parallel, and keeps a receipt in the user's cache folder: a shard is hashed again only
when its inode, size or times have changed. The first start reads all bytes once (and so warms the page cache), later ones none.

`ends` is for sets too large for that, and for mounts whose inodes or times do not last: 128 KiB of each shard. Every image's
position stands at the end, so that a swapped, rebuilt or shifted shard differs there. A change of bytes in place does not;
ArrayRecord's own checksums find it when that image is read.
"""

import contextlib
import hashlib
import os
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mixer_jax.errors import UserError
from mixer_jax.records import Progress
from mixer_jax.storage import cache_folder, read_json, write_json

FORMAT = 2
MANIFEST, UNFINISHED, PLAN = "manifest.json", ".preparing", "plan.json"
DUPLICATES = "duplicates.tsv"
END_BYTES = 64 * 1024
AT_ONCE = 4096  # shards handed to the hashing threads


class Shard(NamedTuple):
    """A manifest's row."""

    name: str
    bytes: int
    records: int  # images
    sha256: str
    ends_sha256: str  # of the first and the last END_BYTES
    reencoded: int  # images whose bytes are not the source's
    left_out: list  # [name, what is wrong] of images of the source that are not here
    duplicates: list | tuple = ()  # [name, exact or near, bits that differ, source, name there] of images that were dropped


def shard_name(split: str, number: int, count: int) -> str:
    return f"{split}-{number:05d}-of-{count:05d}.array_record"


def sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def ends_sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        digest = hashlib.sha256(opened.read(END_BYTES))
        opened.seek(max(0, file.stat().st_size - END_BYTES))
        digest.update(opened.read(END_BYTES))
    return digest.hexdigest()


class Manifest:
    """A split's manifest.json. Raises UserError for one that is missing, damaged or contradicts itself."""

    def __init__(self, directory: Path):
        self.directory, file = directory, directory / MANIFEST
        if not file.is_file():
            raise UserError(_no_manifest(directory))
        self.content = content = read_json(file)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{file} is no manifest of format {FORMAT}, which this version of mixer_jax reads. Prepare anew.")
        try:
            self.class_names = tuple(str(name) for name in content["class_names"])
            self.split, self.max_labels = content["split"], int(content["max_labels"])
            self.shards = [Shard(**row) for row in content.pop("shards")]
            self.command = f"{content['made']['command']} --to {shlex.quote(str(directory.parent))}"
            names = [shard_name(self.split, i, len(self.shards)) for i in range(len(self.shards))]
            consistent = [shard.name for shard in self.shards] == names and bool(names) and "/" not in names[0]
            consistent &= all(shard.records >= 0 and isinstance(shard.sha256, str) for shard in self.shards)
            consistent &= self.max_labels >= 1
            consistent &= sum(shard.records for shard in self.shards) == content["records"]
            consistent &= len(self.class_names) == content["classes"] == len(content["images_of_class"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file} is damaged ({error!r}). Copy it again, or prepare anew in another folder.") from error
        if not consistent:
            raise UserError(f"{file} contradicts itself: its counts or the names of its shards were changed. Copy it again.")

    def check(self, how: str, show_progress: bool = True) -> None:
        """Checks the shards against their rows; `how` is "full" or "ends" (above), or "whole": full without receipts."""
        faults = [fault for shard in self.shards if (fault := _size_fault(self.directory, shard))]
        listed = {shard.name for shard in self.shards}
        there = (entry.name for entry in os.scandir(self.directory))
        extra = sorted(name for name in there if name.endswith(".array_record") and name not in listed)
        if extra:
            place = self.directory / extra[0]
            raise UserError(f"{place} is not in {MANIFEST} ({len(extra)} such). Remove it: rm {place}")
        if not faults:
            faults = self._digest_faults(how, show_progress)
        if faults:
            more = f" (and {len(faults) - 1} more shards)" if len(faults) > 1 else ""
            raise UserError(f"{faults[0]}{more}. Copy it again, or make it anew; whole shards are kept: {self.command}")

    def identity(self) -> str:
        """Of all the bytes of the shards."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()[:16]

    def summary(self) -> str:
        content = self.content
        text = f"{self.directory}: {content['records']} images of {content['classes']} classes in {len(self.shards)} shards"
        kinds = {"left_out": "bad images left out", "reencoded": "images made smaller"}
        parts = [text, *(f"{content[kind]} {words}" for kind, words in kinds.items() if content[kind])]
        if sources := content["made"].get("references"):
            exact, near = content["duplicates"]["exact"], content["duplicates"]["near"]
            parts.append(f"{exact} exact and {near} near duplicates of {', '.join(sources)} dropped")
        return ", ".join(parts) + (f" (see {self.directory / DUPLICATES})" if sources else "")

    def write_receipts(self) -> None:
        """For shards that have just been hashed, by whoever made them."""
        receipts = Receipts(self.directory)
        for shard in self.shards:
            receipts.add(shard, stamp_of(self.directory / shard.name))
        receipts.save()

    def _digest_faults(self, how: str, show_progress: bool) -> list[str]:
        receipts = Receipts(self.directory) if how == "full" else None
        todo = [shard for shard in self.shards if receipts is None or not receipts.covers(shard)]
        progress = Progress(len(todo), 0, unit="shard") if show_progress and todo else None

        def fault(shard: Shard) -> str:
            file = self.directory / shard.name
            stamp = stamp_of(file)  # before reading: a change meanwhile does not slip through
            good = ends_sha256(file) == shard.ends_sha256 if how == "ends" else sha256(file) == shard.sha256
            if good and receipts is not None:
                receipts.add(shard, stamp)
            return "" if good else f"{file} is altered, or another shard under its name: its SHA-256 is not that in {MANIFEST}"

        faults = []
        for number, text in enumerate(_in_threads(fault, todo)):
            faults += [text] if text else []
            if progress:
                progress.update(number + 1)
        if progress:
            progress.close()
        if receipts is not None and todo:
            receipts.save()
        return faults


def _in_threads(function: Callable, shards: list[Shard]) -> Iterator:
    """function of each, in order. Not all at once: what a thread pool keeps for a task is more than a shard's row."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(shards), AT_ONCE):
            yield from threads.map(function, shards[start : start + AT_ONCE])


def _size_fault(directory: Path, shard: Shard) -> str:
    file = directory / shard.name
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return f"{file} is missing"
    return "" if size == shard.bytes else f"{file} has {size} bytes, and {shard.bytes} in {MANIFEST}"


def sound(directory: Path, shards: list[Shard]) -> set[str]:
    """The names of those that are whole, by their SHA-256."""
    there = [shard for shard in shards if not _size_fault(directory, shard)]
    digests = _in_threads(lambda shard: sha256(directory / shard.name), there)
    return {shard.name for shard, digest in zip(there, digests, strict=True) if digest == shard.sha256}


def stamp_of(file: Path) -> str:
    """What changes when a file's bytes are written or the file is replaced."""
    status = file.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class Receipts:
    """Which shards of a folder this machine's user has hashed whole, in a cache folder of the user."""

    def __init__(self, directory: Path):
        self._directory = directory.resolve()
        self._file = cache_folder("verified") / (hashlib.sha256(str(self._directory).encode()).hexdigest() + ".json")
        try:
            self._rows = read_json(self._file)
        except (UserError, OSError):  # a receipt that cannot be read is none
            self._rows = {}

    def covers(self, shard: Shard) -> bool:
        return self._rows.get(shard.name) == f"{shard.sha256} {stamp_of(self._directory / shard.name)}"

    def add(self, shard: Shard, stamp: str) -> None:
        self._rows[shard.name] = f"{shard.sha256} {stamp}"

    def save(self) -> None:
        with contextlib.suppress(OSError):  # where no receipts can be kept, every start hashes anew
            write_json(self._file, self._rows)


def split_folders(directory: Path) -> list[Path]:
    """The folder itself if it is a split, otherwise the splits in it."""
    if (directory / MANIFEST).exists():
        return [directory]
    return sorted(file.parent for file in directory.glob(f"*/{MANIFEST}")) or [directory]


def _no_manifest(directory: Path) -> str:
    if plan := read_json(directory / UNFINISHED / PLAN):
        command = f"{plan['command']} --to {shlex.quote(str(directory.parent))}"
        return f"{directory} is not prepared to its end. Run its command again, it goes on: {command}"
    splits = sorted(file.parent.name for file in directory.parent.glob(f"*/{MANIFEST}"))
    known = f"There are the splits {', '.join(splits)}." if splits else "Make it: python -m mixer_jax prepare --help"
    return f"{directory} has no {MANIFEST}: it is no split that `prepare` made. {known}"
