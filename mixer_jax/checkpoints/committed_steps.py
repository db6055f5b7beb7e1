"""Which steps of a run have been saved completely, by the names of their files alone. Neither JAX nor NumPy is needed for it."""

import re
from collections.abc import Iterable
from pathlib import Path

from mixer_jax.bucket import Bucket, is_in_bucket

CHECKPOINTS = "checkpoints"  # The folder in that of a run.
COMMITTED = re.compile(rf"{CHECKPOINTS}/(\d+)/commit_success\.txt")  # Orbax writes this object last.


def committed_steps(workdir: str) -> list[int]:
    """Return the steps of a run that have been saved completely, in order. There are none before the run has begun.

    Only names of files are read. Raises the errors of `Bucket.names`, and OSError for a disk that fails.
    """
    if is_in_bucket(workdir):
        return committed_in_bucket(Bucket(workdir).names())
    folder = Path(workdir) / CHECKPOINTS
    entries = folder.iterdir() if folder.is_dir() else ()  # On a disk, Orbax gives a folder this name when it is complete.
    return sorted(int(entry.name) for entry in entries if re.fullmatch(r"\d+", entry.name) and entry.is_dir())


def committed_in_bucket(names: Iterable[str]) -> list[int]:
    """Return the steps that have been saved completely, in order, from the names of all objects of a run."""
    return sorted(int(match[1]) for match in map(COMMITTED.fullmatch, names) if match)
