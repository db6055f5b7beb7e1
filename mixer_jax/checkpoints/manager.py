"""A run's checkpoints: they are saved in the background, verified when read, and restored from the newest undamaged step.

WORKDIR/checkpoints/STEP is an Orbax checkpoint with one item for each tree ("params", "ema", "optimizer") and a JSON item "meta".
"meta" states the dtype, shape and checksum of every array and the names of the classes, and has a checksum of its own. Orbax
guarantees that a step appears complete or not at all, even if the process is killed. This module adds three things: checksums,
falling back to an earlier step when a step is damaged, and an error that lists every difference when a checkpoint does not fit.
"""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils

from mixer_jax.bucket import is_in_bucket
from mixer_jax.checkpoints import npz
from mixer_jax.checkpoints.commits import checked_commits, remove_uncommitted, set_up_libraries, uncommit
from mixer_jax.checkpoints.digest import checksums, named_arrays
from mixer_jax.checkpoints.run_paths import CHECKPOINTS, locate
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.storage import check_regular, json_text, read_json, refuse_links

MAX_DESCRIPTION_BYTES = 2**26  # The description ("meta") of H/14's 390 arrays has 60 kB.
MAX_DIMS = 32
MAX_LINES = 100  # The most differences that a message lists. H/14 has 390 arrays.
OS_ERROR = re.compile(r"\[OS error \d+: (?:E[A-Z0-9]+ )?([^\]]+)\]")  # TensorStore's messages end with this.
DAMAGED = "damaged"
# Orbax gives up on a save after this time, by a clock that may be set meanwhile. Twelve days are more than most clocks are wrong.
# A save that hangs is a matter of the watchdog (config.watchdog.save_seconds).
SAVE_SECONDS = 10**6

# Orbax logs this warning whenever a run is opened for reading alone.
logging.getLogger("absl").addFilter(lambda record: not str(record.msg).startswith("Given directory is read only"))


class DamagedError(Exception):
    """An error for a stored step that is incomplete or whose bytes have changed."""


class Checkpoints:
    """The checkpoints of one run, for reading and writing.

    In a run of several processes, each process has its own instance, and all of them make the same calls. `keep` is the number of
    the newest checkpoints that are kept. `check` is called before each commit in a bucket, and raises an error to prevent it.
    """

    def __init__(self, workdir: str, keep: int, check: Callable[[], None] = lambda: None):
        self._workdir = epath.Path(workdir) if is_in_bucket(os.fspath(workdir)) else epath.Path(workdir).resolve()
        self._policy = _KeepPolicy(keep)
        self._manager = _open(self._workdir, self._policy, check)

    def save(self, step: int, items: dict, meta: dict) -> None:
        """Start to save a step, and return as soon as the arrays may be changed.

        Raises EnvironmentFault if this step, or an earlier one that is still being written, cannot be saved.

        Args:
          step: the step's number. Nothing is saved if it is the latest step already.
          items: {"params": tree, "ema": tree, "optimizer": tree} of arrays.
          meta: JSON values that are stored beside the arrays, at least {"step": step}.
        """
        if self.latest_step() == step:
            return
        meta = meta | {"arrays": _array_metadata(items)}
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        with self._saving():
            started = self._manager.save(step, args=ocp.args.Composite(meta=ocp.args.JsonSave(_seal(meta)), **args))
        if not started:
            raise RuntimeError(f"Orbax declined to save step {step}: its latest step is {self.latest_step()}.")

    @property
    def best_step(self) -> int | None:
        """The step that is kept in addition to the newest ones. All hosts must set the same step."""
        return self._policy.best_step

    @best_step.setter
    def best_step(self, step: int) -> None:
        self._policy.best_step = step

    def all_steps(self) -> list[int]:
        """Return the saved steps, including those that are still being written."""
        return list(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """Return the newest step, including one that is still being written, or None if there is none."""
        return self._manager.latest_step()

    def finish(self) -> None:
        """Wait until every step that `save` started is on disk. Raises EnvironmentFault if one cannot be written."""
        with self._saving():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def finishing(self, after_on_all_hosts: tuple[type[Exception], ...]) -> Iterator[None]:
        """If the block raises an error, wait until every step that `save` started is on disk, then raise the error again.

        Waiting involves all hosts. With several hosts, this method therefore waits only after errors of the types
        `after_on_all_hosts`, which all hosts raise at the same step.
        """
        try:
            yield
        except Exception as error:
            if jax.process_count() == 1 or isinstance(error, after_on_all_hosts):
                with contextlib.suppress(EnvironmentFault):  # The error of the block is the one to report.
                    self.finish()
            raise

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Turn an error while saving into an EnvironmentFault that says how much space is left and what is safe."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many types of errors for a disk that is full or fails.
            free = ""
            with contextlib.suppress(OSError):  # The disk may no longer be there.
                free = f", where {shutil.disk_usage(self._workdir).free >> 20} MiB are free"
            raise EnvironmentFault(
                f"A checkpoint could not be saved in {self._workdir}{free} ({_brief(error)}). Those saved before are whole: when "
                "this is mended, the same command goes on from the last."
            ) from error

    def restore_latest(self, items: dict) -> tuple[dict, dict] | None:
        """Return (items, meta) of the newest undamaged step, or None if no step was ever saved.

        `items` holds trees of ShapeDtypeStructs, which state shapes, dtypes and shardings. Damaged steps are moved to
        WORKDIR/damaged, or marked there if it is in a bucket. Raises UserError if the newest undamaged step does not fit `items`,
        or if all steps are damaged: to start over is the user's decision.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return _restore(self._manager, step, items)
            except DamagedError as error:
                done = self._set_aside(step, str(error))
                print(f"Checkpoint {step} is damaged ({error}). {done}")
        if steps:
            raise UserError(
                f"None of the checkpoints {steps} in {self._workdir} could be read. Choose a new --workdir to start over."
            )
        return None

    def _set_aside(self, step: int, reason: str) -> str:
        """Take a damaged step out of the run, wait for all hosts, and return a sentence about where it is or was marked."""
        source, target = self._workdir / CHECKPOINTS / str(step), self._workdir / DAMAGED / f"{step}-{int(time.time())}"
        in_bucket = is_in_bucket(str(self._workdir))
        if jax.process_index() == 0 and in_bucket:
            uncommit(str(self._workdir), step, f"{DAMAGED}/{target.name}.json", reason)
        elif jax.process_index() == 0:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        _wait_for_all_hosts("set_aside")
        self._manager.reload()
        return f"It is passed over, and marked by {target}.json." if in_bucket else f"Moved to {target}."


class _KeepPolicy:
    """The policy that tells Orbax which checkpoints to keep: the `latest` newest ones and the best one."""

    def __init__(self, latest: int):
        self._latest, self.best_step = latest, None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Return, for each checkpoint, oldest first, whether Orbax must keep it."""
        latest = checkpoints[-self._latest :]
        return [checkpoint in latest or checkpoint.step == self.best_step for checkpoint in checkpoints]


def load_run(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return ({path: host array}, meta) of a run's parameters: the averaged parameters if the run keeps them.

    `path` is RUN (its newest undamaged step), RUN/checkpoints/STEP or RUN/best. The returned meta also holds the run's "config".
    Every process reads all of the arrays. Raises UserError if there is no checkpoint, or if all those that `path` names are
    damaged.
    """
    workdir, chosen = locate(path)
    errors = []
    with _open(workdir, policy=None) as manager:
        for step in [chosen] if chosen is not None else sorted(manager.all_steps(), reverse=True):
            try:
                meta = _read_meta(manager, step)
                name = "ema" if "ema" in meta["arrays"] else "params"
                _check_size(Path(workdir / CHECKPOINTS / str(step) / name), meta["arrays"][name])
                restored, meta = _restore(manager, step, {name: _on_host(meta["arrays"][name])})
                return named_arrays(restored[name]), meta | {"config": read_json(workdir / "config.json")}
            except DamagedError as error:
                errors.append(f"step {step}: {error}")
    raise UserError(f"No readable checkpoint in {path}. " + ("; ".join(errors) or "No step has been saved there."))


def differences(expected: dict[str, tuple], found: dict[str, tuple]) -> list[str]:
    """Return one line for each array that is missing, is extra, or has another shape or dtype, and at most MAX_LINES of them.

    Both arguments are {path: (dtype, shape)}, as `signatures` returns them.
    """
    lines = [f"missing   {name} {expected[name]}" for name in expected if name not in found]
    lines += [f"extra     {name} {found[name]}" for name in found if name not in expected]
    lines += [
        f"differs   {name}: the checkpoint has {found[name]}, the config asks for {expected[name]}"
        for name in expected
        if name in found and expected[name] != found[name]
    ]
    return lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES} more"]


def signatures(tree) -> dict[str, tuple]:
    """Return {path: (dtype, shape)} of a tree of arrays or ShapeDtypeStructs."""
    return {name: (x.dtype.name, tuple(x.shape)) for name, x in named_arrays(tree).items()}


def _open(workdir: epath.Path, policy: _KeepPolicy | None, check: Callable[[], None] = lambda: None) -> ocp.CheckpointManager:
    """Return Orbax's manager of a run's checkpoints. It is read-only if `policy` is None."""
    writable, in_bucket = policy is not None, is_in_bucket(str(workdir))
    if in_bucket:
        set_up_libraries()
    else:
        _check_folder(Path(workdir), writable)
    if in_bucket and writable:
        if jax.process_index() == 0:
            remove_uncommitted(str(workdir))
        _wait_for_all_hosts("remove_uncommitted")
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        create=writable,
        read_only=not writable,
        cleanup_tmp_directories=writable and not in_bucket,
        save_interval_steps=1 if writable else 0,
        async_options=ocp.AsyncOptions(timeout_secs=SAVE_SECONDS),
        temporary_path_class=checked_commits(check) if in_bucket else None,
    )  # fmt: skip
    return ocp.CheckpointManager(workdir / CHECKPOINTS, options=options)


def _wait_for_all_hosts(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _check_folder(workdir: Path, writable: bool) -> None:
    """Raise UserError for links and files in a run's folder that Orbax must not follow or read."""
    folder = workdir / CHECKPOINTS
    steps = list(folder.iterdir()) if folder.is_dir() else []
    for step in steps:
        _check_files(step, top_only=True)  # Orbax reads some of these files when its manager is created.
    if writable:
        refuse_links(folder, workdir / DAMAGED, *steps)


def _array_metadata(items: dict) -> dict:
    """Return {item: {path: {"dtype", "shape", "checksum"}}} for trees of arrays."""
    sums = jax.device_get({name: checksums(tree) for name, tree in items.items()})
    return {
        item: {
            name: {"dtype": dtype, "shape": shape, "checksum": int(sums[item][name])}
            for name, (dtype, shape) in signatures(tree).items()
        }
        for item, tree in items.items()
    }


def _read_meta(manager: ocp.CheckpointManager, step: int) -> dict:
    """Return the description of a step. Raises DamagedError if it cannot be read or is not what `save` writes."""
    try:
        _check_files(Path(manager.directory / str(step)))
        meta = _unseal(manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"])
        _check_description(meta)
    except Exception as error:  # Orbax and TensorStore raise many types of errors for files that are missing or truncated.
        raise DamagedError(f"its description cannot be read: {_first_line(error)}") from error
    return meta


def _check_files(step: Path, *, top_only: bool = False) -> None:
    """Raise UserError for a file of a step that has no end, such as a pipe, or that would take much memory to read.

    The files in folders named "d" hold the arrays. Orbax reads each other file into memory at once. Files that disappear
    meanwhile are ignored, because the run may be deleting old steps. A link to a folder is refused, because this check does not
    follow it.
    """
    for folder, folders, files in os.walk(step):
        if link := next((name for name in folders if os.path.islink(os.path.join(folder, name))), None):
            raise UserError(f"{folder}/{link} is a link to a folder. Put the folder itself in its place.")
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                check_regular(Path(folder, name), math.inf if os.path.basename(folder) == "d" else MAX_DESCRIPTION_BYTES)
        if top_only:
            return


def _check_description(meta: dict) -> None:
    """Raise an error if a description is not what `save` writes. The folder may come from somebody else."""
    if not isinstance(meta["step"], int) or not {"params", "ema"} & meta["arrays"].keys():
        raise ValueError("it has no step, or no parameters")
    for array in (array for arrays in meta["arrays"].values() for array in arrays.values()):
        jnp.dtype(array["dtype"])
        is_shape = isinstance(array["shape"], list) and all(isinstance(dim, int) and 0 <= dim < 2**31 for dim in array["shape"])
        if not is_shape or len(array["shape"]) > MAX_DIMS or not isinstance(array["checksum"], int):
            raise ValueError(f"it has no shape or checksum of an array: {array}")


def _check_size(folder: Path, arrays: dict) -> None:
    """Raise DamagedError if arrays are much larger than their files, before memory is allocated for the arrays."""
    declared = sum(math.prod(array["shape"]) * jnp.dtype(array["dtype"]).itemsize for array in arrays.values())
    stored = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                stored += os.stat(os.path.join(path, name)).st_size
    if declared > npz.EXPANSION_LIMIT * stored + npz.EXPANSION_FREE:
        raise DamagedError(f"it declares {declared} bytes of arrays in {stored} bytes of files: these are nearly all zeros")


def _seal(meta: dict) -> dict:
    """Return a description as it is stored: as JSON text, with the SHA-256 of that text."""
    text = json_text(meta)
    return {"content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _unseal(stored: dict) -> dict:
    """Return the description that `_seal` was given. Raises ValueError if a byte of the stored text has changed."""
    if "arrays" in stored:  # Before December 2026, descriptions were stored without a SHA-256.
        return stored
    if hashlib.sha256(stored["content"].encode()).hexdigest() != stored["sha256"]:
        raise ValueError("its bytes have changed since they were saved")
    return json.loads(stored["content"])


def _restore(manager: ocp.CheckpointManager, step: int, items: dict) -> tuple[dict, dict]:
    """Return (items, meta) of a step, and verify the checksum of every array.

    Raises UserError if the step does not fit `items`, and DamagedError if it cannot be read or its bytes have changed.
    """
    meta = _read_meta(manager, step)
    for name, tree in items.items():
        stored = {path: (array["dtype"], tuple(array["shape"])) for path, array in meta["arrays"].get(name, {}).items()}
        lines = differences(signatures(tree), stored)
        if lines:
            raise UserError(f"Checkpoint {manager.directory / str(step)} does not fit ({name}):\n  " + "\n  ".join(lines))
    try:
        args = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
        restored = manager.restore(step, args=ocp.args.Composite(**args))
    except Exception as error:
        raise DamagedError(_first_line(error)) from error
    for name in items:
        changed = [
            path
            for path, total in jax.device_get(checksums(restored[name])).items()
            if int(total) != meta["arrays"][name][path]["checksum"]
        ]
        if changed:
            raise DamagedError(f"the bytes of {changed[0]} and {len(changed) - 1} others have changed since they were saved")
    return {name: restored[name] for name in items}, meta


def _on_host(arrays: dict) -> dict:
    """Return a tree of NumPy arrays that allocate no memory. Given as a target, it tells Orbax to restore into host memory."""
    zeros = {path: np.broadcast_to(np.zeros((), jnp.dtype(array["dtype"])), array["shape"]) for path, array in arrays.items()}
    return traverse_util.unflatten_dict(zeros, sep="/")


def _brief(error: Exception) -> str:
    """Return the reason why a write failed, without the paths of Orbax's temporary files."""
    if "RESOURCE_EXHAUSTED" in str(error):  # TensorStore reports both ENOSPC and EDQUOT in this way.
        return os.strerror(errno.ENOSPC)
    known = OS_ERROR.search(str(error))
    return known[1] if known else getattr(error, "strerror", None) or _first_line(error)


def _first_line(error: Exception) -> str:
    """Return an error's type and the first line of its message, in at most 300 characters."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
