"""Copies a dataset that TFDS prepared from a bucket to this machine, before a run reads it: data.data_dir=gs://BUCKET/PATH.

The copy is made where local_copy.py makes those of our own splits, in the same way. It has the files of the splits that are read,
of one version of the dataset. TFDS states neither the sizes nor the digests of its files. So the copy lies in FOLDER/DIGEST, with
a digest of the names of all files of the version and of their generations in the bucket. A file that is written anew there has
another generation, and a file of the copy gets its name when it is whole.
"""

import hashlib
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mixer_jax.bucket import Bucket, is_in_bucket
from mixer_jax.data.sources.local_copy import NO_COPY, CopiedBytes, bytes_there, choose_target, copy_all, copying
from mixer_jax.data.sources.tfds_builder import DESCRIPTIONS, FILE_OF_DATASET, MAX_DESCRIPTION_BYTES, directory_of, open_builder
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.storage import write_whole

REQUESTS_AT_ONCE = 32


class BucketDataset(NamedTuple):
    """A prepared dataset in a bucket.

    Attributes:
      bucket: the folder of the dataset, with all its versions.
      version: the path of the version in this folder, such as 1.0.0 or CONFIG/1.0.0.
      files: the paths in this folder of all files of the version.
      split_bytes: {name of a split: about the number of bytes of its files}.
    """

    bucket: Bucket
    version: str
    files: list[str]
    split_bytes: dict[str, int]


def copy_dataset(name: str, split: str, data_dir: str, folder: str) -> str:
    """Return the folder of prepared data on this machine that has a split of a dataset, copied if `data_dir` is in a bucket.

    Args:
      name: the name of the dataset, NAME[/CONFIG][:VERSION].
      split: the name of the split, a slice of it, or a sum of such.
      data_dir: the folder of the prepared data. If it is on this machine, it is returned.
      folder: where copies are made. If it is empty, a folder with enough room is chosen.

    Raises:
      UserError: there is no such dataset, it may not be read or has no ArrayRecord files of the split, or no folder has room.
      EnvironmentFault: the bucket does not answer, or the disk fails.
    """
    if not is_in_bucket(data_dir):
        return data_dir
    if folder == NO_COPY:
        raise UserError(
            f"data.local_copy={NO_COPY} is for records: what TFDS prepared is copied. Name a folder, or leave it empty."
        )
    found, directory = _look_up(name, data_dir), directory_of(name)
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        generations = dict(zip(found.files, threads.map(found.bucket.generation, found.files), strict=True))
    digest = hashlib.sha256(repr((found.bucket.url, generations)).encode()).hexdigest()[:16]
    # A split that TFDS does not know is refused when it is opened, with the names of the others.
    splits = [known for known in found.split_bytes if re.search(rf"\b({re.escape(known)}|all)\b", split)]
    records = [file for file in found.files if _is_of(file, splits)]
    if splits and not records:
        raise UserError(
            f"{found.bucket.url}/{found.version} has no ArrayRecord files of {' and '.join(splits)}, which random access needs. "
            "Convert it by `tfds convert_format` with --out_file_format=array_record, and upload what this makes."
        )
    paths, total = [f"{directory}/{file}" for file in records], sum(found.split_bytes[known] for known in splits)
    target = choose_target(found.bucket.url, digest, paths, total, folder)
    with copying(target):
        needed = [file for file in found.files if file.endswith(DESCRIPTIONS)] + records
        missing = [file for file in needed if not (target / directory / file).exists()]

        def copy(file: str, progress: CopiedBytes) -> None:
            _copy_file(found.bucket, file, generations[file], target, target / directory / file, progress)

        copy_all(found.bucket.url, target, missing, copy, bytes_there(target, paths), total)
    return str(target)


def names_of_splits(name: str, data_dir: str) -> tuple[str, ...]:
    """Return the names of the splits of a prepared dataset. Raises the errors of `copy_dataset`."""
    if is_in_bucket(data_dir):
        return tuple(_look_up(name, data_dir).split_bytes)
    return tuple(open_builder(name, data_dir).info.splits)


def _look_up(name: str, data_dir: str) -> BucketDataset:
    """Find a dataset in a bucket by its descriptions, without its examples. Raises the errors of `copy_dataset`."""
    directory = directory_of(name)
    bucket = Bucket(f"{data_dir.rstrip('/')}/{directory}")
    files = [file for file in bucket.names() if FILE_OF_DATASET.fullmatch(file) and not {"", "..", "."} & set(file.split("/"))]
    with tempfile.TemporaryDirectory(prefix="mixer_jax-tfds-") as folder:
        for file in files:
            if file.endswith(DESCRIPTIONS):
                path = Path(folder, directory, file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bucket.read_whole(file, MAX_DESCRIPTION_BYTES) or b"")
        try:
            builder = open_builder(name, folder)
        except UserError as error:
            raise UserError(str(error).replace(folder, data_dir)) from error
        version = os.path.relpath(str(builder.data_path), Path(folder, directory))
        split_bytes = {split: info.num_bytes for split, info in builder.info.splits.items()}
    return BucketDataset(bucket, version, [file for file in files if file.startswith(f"{version}/")], split_bytes)


def _is_of(file: str, splits: list[str]) -> bool:
    """Return whether a file has examples of one of these splits: DATASET-SPLIT.array_record-00000-of-00001."""
    return any(re.search(rf"-{re.escape(split)}\.array_record[^/]*$", file) for split in splits)


def _copy_file(bucket: Bucket, name: str, generation: bytes | None, target: Path, file: Path, progress: CopiedBytes) -> None:
    """Copy an object to a file. Raises EnvironmentFault, and leaves no file, if it has another generation at the end.

    The temporary file lies in `target`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(file, target) as temporary:
        with open(temporary, "wb") as written:
            for content in bucket.read_ranges(name):
                written.write(content)
                progress.add(len(content))
        if bucket.generation(name) != generation:
            raise EnvironmentFault(f"{bucket.url}/{name} was written anew while it was copied. Start again.")
