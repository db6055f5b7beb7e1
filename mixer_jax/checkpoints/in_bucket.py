"""Reads the parameters of a run in a bucket: a step is copied to this machine, and then read like any other."""

import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from mixer_jax.bucket import Bucket
from mixer_jax.checkpoints.committed_steps import CHECKPOINTS, committed_in_bucket
from mixer_jax.checkpoints.manager import load_run
from mixer_jax.checkpoints.run_paths import locate_in_bucket
from mixer_jax.errors import UserError
from mixer_jax.mirror import is_plain

READERS = 16
LEFT_OUT = ("optimizer", "params", "ema")  # Items of a step that are copied only if they are asked for.


def load_run_in_bucket(url: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return what `load_run` returns, for gs://BUCKET/RUN, gs://BUCKET/RUN/checkpoints/STEP or gs://BUCKET/RUN/best.

    Raises UserError as `load_run` does, and the errors of `Bucket.read`.
    """
    bucket, chosen = locate_in_bucket(url)
    names, errors = bucket.names(), []
    if not any(name.startswith(f"{CHECKPOINTS}/") for name in names):
        raise UserError(f"There is no run at {bucket.url}, and no file {url}.")
    for step in [chosen] if chosen is not None else reversed(committed_in_bucket(names)):
        with tempfile.TemporaryDirectory() as folder:
            _copy(bucket, [name for name in names if name == "config.json"] + _names_of(step, names), Path(folder))
            try:
                return load_run(f"{folder}/{CHECKPOINTS}/{step}")
            except UserError as error:
                errors.append(str(error).replace(folder, bucket.url))
    raise UserError(" ".join(errors) or f"No readable checkpoint in {url}. No step has been saved there.")


def _names_of(step: int, names: Iterable[str]) -> list[str]:
    """Return the names of the objects of a step that its evaluation needs."""
    items: dict[str, list[str]] = {}
    for name in names:
        match PurePosixPath(name).parts:
            case (folder, number, item, *_) if (folder, number) == (CHECKPOINTS, str(step)):
                items.setdefault(item, []).append(name)
    chosen = "ema" if "ema" in items else "params"
    return [name for item, group in items.items() if item == chosen or item not in LEFT_OUT for name in group]


def _copy(bucket: Bucket, names: Iterable[str], folder: Path) -> None:
    """Copy objects to a folder. Raises UserError for a name that leads out of it."""

    def copy(name: str) -> None:
        if not is_plain(name):
            raise UserError(f"{bucket.url}/{name}: no run has an object of this name. Remove it.")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "wb") as file:
            file.writelines(bucket.read_ranges(name))

    with ThreadPoolExecutor(READERS) as readers:
        list(readers.map(copy, names))
