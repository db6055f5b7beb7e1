"""The manifest of a prepared split, and the checks that the shards are those of the manifest.

DIR/SPLIT/manifest.json lists the classes, how the split was made, and all shards. shards.py describes the content of a shard.
When a split is opened, a UserError names a shard that is missing, has another size, is not listed, or has another digest. There
are two ways to compare digests:

`full` hashes every shard with SHA-256, in parallel, and keeps a receipt in the user's cache folder. A shard is hashed again only
if its inode, size or times have changed. So the first start reads all bytes once, which also fills the page cache, and later
starts read none.

`ends` hashes only the first and the last 64 KiB of each shard. It is for data too large for `full`, and for mounts whose inodes
or times change. The positions of all images stand at the end of a shard, so a swapped, rebuilt or shifted shard has another
digest. Bytes that changed in place are not noticed at the start; ArrayRecord's own checksums notice them when the image is read.
`ends` is meant for your own shards, because only `full` refuses a shard that would unpack to gigabytes.
"""

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mixer_jax.data.sources.receipts import Receipts, stamp_of
from mixer_jax.data.sources.record_index import INDEX, INDEX_SHA256
from mixer_jax.data.sources.riegeli import unpacked_size
from mixer_jax.errors import UserError
from mixer_jax.records import Progress
from mixer_jax.storage import open_regular, read_json

FORMAT = 2
MANIFEST, UNFINISHED, PLAN = "manifest.json", ".preparing", "plan.json"
PREPARE = ["python", "-m", "mixer_jax", "prepare"]
DUPLICATES = "duplicates.tsv"
END_BYTES = 64 * 1024
SHARDS_AT_ONCE = 4096  # At most this many shards are handed to the hashing threads at the same time.


class Shard(NamedTuple):
    """The entry of a shard in a manifest.

    Attributes:
      name: the name of its file.
      bytes: the size of its file.
      records: the number of its images.
      sha256: the SHA-256 of its file.
      ends_sha256: the SHA-256 of the first and the last END_BYTES of its file.
      reencoded: the number of images that were encoded again, so that their bytes are not those of the source.
      left_out: [name, what is wrong] of each image of the source that was left out.
      duplicates: [name, "exact" or "near", distance, source or "within", name there] of each image that was dropped because it is
        a duplicate.
    """

    name: str
    bytes: int
    records: int
    sha256: str
    ends_sha256: str
    reencoded: int
    left_out: list
    duplicates: list | tuple = ()


def shard_name(split: str, number: int, count: int) -> str:
    """Return the name of the file of shard `number` of `count`, such as train-00003-of-00626.array_record."""
    return f"{split}-{number:05d}-of-{count:05d}.array_record"


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def ends_sha256(file: Path) -> str:
    """Return the SHA-256 of the first and the last END_BYTES of a file."""
    with open_regular(file) as opened:
        digest = hashlib.sha256(opened.read(END_BYTES))
        opened.seek(max(0, file.stat().st_size - END_BYTES))
        digest.update(opened.read(END_BYTES))
    return digest.hexdigest()


class Manifest:
    """The manifest.json of a split.

    Attributes:
      directory: the folder of the split, or its URL in a bucket.
      content: the JSON object, without its list of shards.
      class_names: the names of the classes, in the order of their numbers.
      split: the name of the split.
      max_labels: the largest number of labels that an image has.
      shards: the entries of the shards.
      command: the command that makes the split anew.
    """

    def __init__(self, directory: Path | str, content: dict | None = None):
        """Take the `content` of the manifest, or read it. Raises UserError if it is missing, damaged, or contradicts itself."""
        self.directory, file = directory, f"{directory}/{MANIFEST}"
        if content is None and not Path(file).is_file():
            raise UserError(_explain_missing(Path(directory)))
        self.content = content = read_json(Path(file)) if content is None else content
        if content.get("format") != FORMAT:
            raise UserError(f"{file} is no manifest of format {FORMAT}, which this version of mixer_jax reads. Prepare anew.")
        try:
            self.class_names = tuple(content["class_names"])
            self.split, self.max_labels = content["split"], content["max_labels"]
            self.shards = [Shard(**row) for row in content.pop("shards")]
            self.command = command_of(content["made"], directory)
            names = [shard_name(self.split, i, len(self.shards)) for i in range(len(self.shards))]
            consistent = [shard.name for shard in self.shards] == names and bool(names) and "/" not in names[0]
            consistent &= all(_is_count(shard.records, shard.bytes) and isinstance(shard.sha256, str) for shard in self.shards)
            consistent &= all(isinstance(name, str) for name in self.class_names)
            consistent &= _is_count(self.max_labels, content["records"], *content["images_of_class"])
            consistent &= 1 <= self.max_labels <= max(1, len(self.class_names))
            consistent &= sum(shard.records for shard in self.shards) == content["records"]
            consistent &= len(self.class_names) == content["classes"] == len(content["images_of_class"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file} is damaged ({error!r}). Copy it again, or prepare anew in another folder.") from error
        if not consistent:
            raise UserError(f"{file} contradicts itself: its counts or the names of its shards were changed. Copy it again.")
        if twice := [name for name, count in Counter(self.class_names).items() if count > 1]:
            raise UserError(f"{file} has two classes of one name, {twice[0]!r}: prepare anew with names that differ.")

    def check(self, how: str, show_progress: bool = True) -> None:
        """Check the shards against the manifest. Raises UserError that names the first shard that differs.

        `how` is "full" or "ends", as described at the top of this file, or "whole", which hashes every shard without regard to
        receipts, and the index.
        """
        faults = [fault for shard in self.shards if (fault := _find_size_fault(self.directory, shard))]
        listed = {shard.name for shard in self.shards}
        names = (entry.name for entry in os.scandir(self.directory))
        extra = sorted(name for name in names if name.endswith(".array_record") and name not in listed)
        if extra:
            file = self.directory / extra[0]
            raise UserError(f"{file} is not in {MANIFEST} ({len(extra)} such). Remove it: rm {file}")
        if how == "whole" and INDEX_SHA256 in self.content and self._is_index_altered():
            faults.append(f"{self.directory / INDEX} is missing or altered")
        if not faults:
            faults = self._find_digest_faults(how, show_progress)
        if faults:
            more = f" (and {len(faults) - 1} more shards)" if len(faults) > 1 else ""
            raise UserError(f"{faults[0]}{more}. Copy it again, or make it anew; whole shards are kept: {self.command}")

    def _is_index_altered(self) -> bool:
        """Return whether the index is missing or is not that of the manifest."""
        file = self.directory / INDEX
        return not file.exists() or sha256(file) != self.content[INDEX_SHA256]

    def identity(self) -> str:
        """Return a digest of all bytes of all shards, made from their SHA-256."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()[:16]

    def summary(self) -> str:
        """Return a sentence with the numbers of images, classes and shards, and what was left out or changed."""
        content, made = self.content, self.content["made"]
        text = f"{self.directory}: {content['records']} images of {content['classes']} classes in {len(self.shards)} shards"
        counts = {"left_out": "unreadable images left out", "reencoded": "images made smaller"}
        parts = [text, *(f"{content[name]} {words}" for name, words in counts.items() if content[name])]
        if originals := [*made.get("references", ()), *(["earlier images"] if made.get("within") else [])]:
            exact, near = content["duplicates"]["exact"], content["duplicates"]["near"]
            parts.append(f"{exact} exact and {near} near duplicates of {', '.join(originals)} dropped")
        return ", ".join(parts) + (f" (see {self.directory / DUPLICATES})" if originals else "")

    def write_receipts(self, stamps: dict[str, str]) -> None:
        """Write receipts for shards that have just been hashed.

        `stamps` is {name of the shard: stamp of its file from before its bytes were read}, as `find_sound` returns it.
        """
        receipts = Receipts(self.directory)
        for shard in self.shards:
            if shard.name in stamps:
                receipts.add(shard.name, shard.sha256, stamps[shard.name])
        receipts.save()

    def _find_digest_faults(self, how: str, show_progress: bool) -> list[str]:
        """Return a sentence for each shard whose digest is wrong or that would unpack to much more than its size."""
        receipts = Receipts(self.directory) if how == "full" else None
        unchecked = [shard for shard in self.shards if receipts is None or not receipts.covers(shard.name, shard.sha256)]
        progress = Progress(len(unchecked), 0, unit="shard") if show_progress and unchecked else None

        def find_fault(shard: Shard) -> str:
            file = self.directory / shard.name
            # The stamp is from before the reading, so that the next start notices a change during the reading.
            stamp = stamp_of(file)
            is_sound = ends_sha256(file) == shard.ends_sha256 if how == "ends" else sha256(file) == shard.sha256
            if not is_sound:
                return f"{file} is altered, or another shard under its name: its SHA-256 is not that in {MANIFEST}"
            if how != "ends" and not is_uncompressed(file):
                return f"{file} would unpack to much more than its size: it is no shard that `prepare` wrote"
            if receipts is not None:
                receipts.add(shard.name, shard.sha256, stamp)
            return ""

        faults = []
        for number, text in enumerate(_map_in_threads(find_fault, unchecked)):
            faults += [text] if text else []
            if progress:
                progress.update(number + 1)
        if progress:
            progress.close()
        if receipts is not None and unchecked:
            receipts.save()
        return faults


def is_uncompressed(file: Path) -> bool:
    """Return whether a shard unpacks to at most twice its size. Ours do, because their images are already compressed."""
    try:
        return unpacked_size(file) <= 2 * file.stat().st_size
    except ValueError:
        return False


def _is_count(*values: Any) -> bool:
    """Return whether all values are integers that are not negative and fit into 64 bits."""
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def _map_in_threads(function: Callable, shards: list[Shard]) -> Iterator:
    """Yield function(shard) of each shard, in order.

    Not all shards are handed over at once, because a thread pool needs more memory for a task than the manifest for a shard.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(shards), SHARDS_AT_ONCE):
            yield from threads.map(function, shards[start : start + SHARDS_AT_ONCE])


def _find_size_fault(directory: Path, shard: Shard) -> str:
    """Return what is wrong with the size of a shard's file, or ""."""
    file = directory / shard.name
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return f"{file} is missing"
    return "" if size == shard.bytes else f"{file} has {size} bytes, and {shard.bytes} in {MANIFEST}"


def command_of(made: Any, directory: Path | str) -> str:
    """Return the command that makes a split anew, for messages.

    The manifest may come from somebody else, and the user will type what a message says. So each word is quoted anew, and a
    command other than `python -m mixer_jax prepare` is replaced by a template.

    Args:
      made: the manifest's description of how the split was made; its "command" is the command's text.
      directory: the folder of the split, or its URL.
    """
    text = made.get("command") if isinstance(made, dict) else None
    try:
        words = shlex.split(text) if isinstance(text, str) else []
    except ValueError:  # A quotation mark is not closed.
        words = []
    if words[: len(PREPARE)] != PREPARE:
        words = [*PREPARE, "--from", "KIND:PATH"]
    return shlex.join([*words, "--to", os.path.dirname(directory) or "."])


def find_sound(directory: Path, shards: list[Shard], how: str = "whole") -> dict[str, str]:
    """Return the shards whose size and digests are right, as {name: stamp of the file from before it was read}.

    `how` is "whole" or "ends". The latter compares the digest of the ends alone.
    """
    right_size = [shard for shard in shards if not _find_size_fault(directory, shard)]
    stamps = {shard.name: stamp_of(directory / shard.name) for shard in right_size}

    def is_sound(shard: Shard) -> bool:
        file = directory / shard.name
        return ends_sha256(file) == shard.ends_sha256 and (how == "ends" or sha256(file) == shard.sha256)

    pairs = zip(right_size, _map_in_threads(is_sound, right_size), strict=True)
    return {shard.name: stamps[shard.name] for shard, sound in pairs if sound}


def split_folders(directory: Path) -> list[Path]:
    """Return the folders of the splits in `directory`, or `directory` itself if it is a split or holds none."""
    if (directory / MANIFEST).exists():
        return [directory]
    return sorted(file.parent for file in directory.glob(f"*/{MANIFEST}")) or [directory]


def prepared_splits(directory: Path) -> tuple[str, ...]:
    """Return the names of the prepared splits in a folder, sorted."""
    return tuple(sorted(file.parent.name for file in directory.glob(f"*/{MANIFEST}")))


def _explain_missing(directory: Path) -> str:
    if plan := read_json(directory / UNFINISHED / PLAN):
        return f"{directory} is not prepared to its end. Run its command again, it goes on: {command_of(plan, directory)}"
    splits = prepared_splits(directory.parent)
    known = f"There are the splits {', '.join(splits)}." if splits else "Make it: python -m mixer_jax prepare --help"
    return f"{directory} has no {MANIFEST}: it is no split that `prepare` made. {known}"
