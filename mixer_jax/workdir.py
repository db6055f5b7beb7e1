"""The folder of a run, on a disk or in a bucket: who owns it, what it holds, and what may be written there."""

import contextlib
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.bucket import Bucket, is_in_bucket, set_up_gcsfs
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts.software import bundle_digest, git_commit, versions
from mixer_jax.lease import BucketLease, HeldError, Lease, bucket_owner
from mixer_jax.mirror import Mirror, copy_files
from mixer_jax.recorded_config import differences, moved_data, recorded_config
from mixer_jax.records import PREDICTIONS, predictions_file, read_results
from mixer_jax.storage import Folder, Storage, cache_folder, read_bytes, read_json, refuse_links, write_json

OTHER_WORKDIR = "choose another --workdir."
LOCK, MAX_OWNER_BYTES = ".lock", 10_000
FILES_OF_A_RUN = ("config.json", "run.json", "metrics.jsonl", "checkpoints")
TRAIN_ON = (
    "\nA schedule that decays ends at config.total, so with another length every step would be another: only a run with "
    "schedule.decay=constant can be made longer. To train on from here, start a new run with another --workdir and "
    "--config.init_from={} --config.init_head=restore."
)


class Workdir:
    """The folder of a run, which this process holds until it ends, so that a second run cannot write in it.

    All hosts of a pod name the same folder, on a disk that they share or in a bucket. Only the `writer` among them owns it and
    writes in it. Raises EnvironmentFault while another process owns the folder.

    Attributes:
      name: the absolute path of the folder, or its URL.
      path: a folder on this machine with the files of the run, except for the checkpoints. For a run in a bucket, this folder is
        temporary, and `upload` copies what has changed in it. Hosts that do not write have only config.json and results.json.
      owner: what names this process, or None if it is not the writer.
    """

    def __init__(self, path: str, writer: bool = True):
        self._writer = writer
        self._bucket = Bucket(path) if is_in_bucket(path) else None
        self.path = _temporary_folder() if self._bucket else _check_folder(path)
        self.name = self._bucket.url if self._bucket else str(self.path)
        self._lease = self._take() if writer else None
        self.owner = self._lease.owner if self._lease else None
        self._mirror = None
        if self._bucket and isinstance(self._lease, BucketLease):
            self._mirror = Mirror(self._bucket, self.path, self._lease.check)
        elif self._bucket:
            copy_files(self._bucket, self.path, ["config.json", "results.json"])
        if self._bucket:
            weakref.finalize(self, _end, self._mirror, self.path)

    def _take(self) -> Lease | BucketLease:
        try:
            if self._bucket:
                return BucketLease(self._bucket)
            self.path.mkdir(parents=True, exist_ok=True)
            refuse_links(self.path / PREDICTIONS)
            return Lease(self.path / LOCK)
        except HeldError as error:
            raise EnvironmentFault(
                f"{self.name} is in use by {error}. Wait for it, stop it, or choose another --workdir."
            ) from error

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Upload what has changed. If the block has failed, its own error is raised, and none of the upload."""
        with contextlib.suppress(EnvironmentFault, UserError) if error else contextlib.nullcontext():
            self.upload()

    def upload(self) -> None:
        """Upload what has changed, for a run in a bucket. Raises EnvironmentFault if that fails, or the run has another owner."""
        if self._mirror:
            self._mirror.upload()

    def remove(self, name: str) -> None:
        """Remove a file of the run if it is there. Raises EnvironmentFault as `upload` does."""
        (self.path / name).unlink(missing_ok=True)
        if self._mirror:
            self._mirror.remove(name)

    def write_note(self, name: str, text: str) -> None:
        """Write a small file of this host alone, such as its heartbeat, at once and also if this host is not the writer.

        Raises the errors of `Storage`.
        """
        storage: Storage = self._bucket or Folder(self.path)
        storage.write(name, text.encode())

    def check_owner(self) -> None:
        """Raise EnvironmentFault if the run is in a bucket and has another owner now."""
        if isinstance(self._lease, BucketLease):
            self._lease.check()

    def read_owner(self) -> str | None:
        """Return what names the process that owns the folder, or None if there is none."""
        if self._bucket:
            return bucket_owner(self._bucket)
        lock = self.path / LOCK
        return read_bytes(lock, MAX_OWNER_BYTES).decode(errors="replace") if lock.is_file() else None

    def refuse_other_run(self, config: ConfigDict) -> None:
        """Raise UserError if the folder has a run of another config; the message lists the options that differ.

        A folder that has the results of an evaluation alone is refused too, because training would replace them.
        """
        if (before := self._read_config()) is None:
            if (self.path / "results.json").exists():
                raise UserError(f"{self.name} has the results of evaluate.py, and training would replace them: {OTHER_WORKDIR}")
            return
        changed = differences(before, _as_recorded(config))
        if changed:
            lines = "".join(
                f"\n  {name}: {then!r} there, {now!r} now{_flag(name, then)}" for name, (then, now) in changed.items()
            )
            longer = TRAIN_ON.format(self.name) if any(name.startswith("total.") for name in changed) else ""
            raise UserError(f"{self.name} holds a run with another config. Choose another --workdir, or undo:{lines}{longer}")

    def say_moved_data(self, config: ConfigDict) -> None:
        """Print each path of the training data that has changed since the last start. The caller has compared the data."""
        before = self._read_config() if self._writer else None
        moved = moved_data(before, _as_recorded(config)) if before is not None else {}
        for name, (then, now) in moved.items():
            print(f"config.{name} is {now} now, and was {then}: the records are the same, so the run goes on.")

    def _read_config(self) -> ConfigDict | None:
        """Return the config of the run in the folder, or None if there is no run."""
        file = self.path / "config.json"
        return recorded_config(read_json(file)) if file.exists() else None

    def record_start(self, config: ConfigDict, facts: dict) -> None:
        """Write config.json, and add a record of this start to run.json: `facts`, the command, versions and the git commit."""
        if not self._writer:
            return
        write_json(self.path / "config.json", json.loads(config.to_json()))
        file = self.path / "run.json"
        starts = read_json(file).get("starts", [])
        start = {
            "time": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            "command": " ".join([Path(sys.executable).name, *sys.argv]),
            "git_commit": git_commit(),
            "bundle_sha256": bundle_digest(),
            "python": platform.python_version(),
            "versions": versions(),
            "host": platform.node(),
        }
        write_json(file, {"starts": [*starts, start | facts]})

    def add_results(self, results: dict) -> None:
        """Write results.json, and upload what has changed.

        It keeps the figures of other evaluators if they are of the same step and parameters. Raises the errors of `upload`.
        """
        if not self._writer:
            return
        before = read_results(self.path)
        if all(before.get(name) == results[name] for name in ("step", "params_sha256")):
            parts = ("evals", "evaluators", PREDICTIONS)
            results = results | {part: before.get(part, {}) | results[part] for part in parts}
        write_json(self.path / "results.json", results)
        self.upload()

    def replaced_by(self, results: dict) -> str:
        """Return a line about the results of other parameters that `add_results` would replace, or "" if there are none."""
        before = read_results(self.path) if self._writer else {}
        if before.get("params_sha256") in (None, results["params_sha256"]):
            return ""
        return f"{self.name}/results.json had the figures of {before.get('checkpoint', 'other parameters')}: these replace them."

    def has_results(self, step: int) -> bool:
        """Return whether results.json is of this step."""
        return self._writer and read_results(self.path).get("step") == step

    def has_figures(self, step: int, evaluator: str, description: dict, with_predictions: bool) -> bool:
        """Return whether there are the figures of an evaluator with this name and description at this step.

        With `with_predictions`, its predictions for each example must be there too.
        """
        results = read_results(self.path)
        described = results.get("evaluators", {}).get(evaluator, description)  # results before 2026-12 do not describe them
        if not (self.has_results(step) and evaluator in results.get("evals", {}) and described == description):
            return False
        is_written = evaluator in results.get(PREDICTIONS, {}) and predictions_file(self.path, evaluator).exists()
        return is_written or not with_predictions


def check_workdir(path: str) -> Path | None:
    """Return the absolute path of a run's folder, or None for one in a bucket, which is probed.

    Raises UserError if the folder cannot be made or written in, and EnvironmentFault if the bucket cannot.
    """
    if not path:
        raise UserError("--workdir is empty: name the run's folder.")
    if is_in_bucket(path):
        bucket = Bucket(path)
        set_up_gcsfs()
        bucket.probe()
        return None
    return _check_folder(path)


def _check_folder(path: str) -> Path:
    folder = Path(path).expanduser().absolute()
    if not _is_utf8(str(folder)):
        raise UserError(
            f"--workdir={path!r} is not read as UTF-8 here, in which checkpoints need it. Set PYTHONUTF8=1, or rename it."
        )
    existing = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise UserError(f"--workdir={path}: {existing} is there and is no folder. Name a folder, or one that can be made.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--workdir={path}: you may not write in {existing}. Change its permissions, or name another folder.")
    return folder


def _is_utf8(name: str) -> bool:
    """Return whether the locale's encoding could read every byte of a name."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def refuse_run_folder(workdir: str) -> None:
    """Raise UserError for the folder of a run, because an evaluation would replace the results.json that training wrote."""
    if folder := check_workdir(workdir):
        there = {name for name in FILES_OF_A_RUN if (folder / name).exists()}
    else:
        there = {name.split("/")[0] for name in Bucket(workdir).names()}
    if there & set(FILES_OF_A_RUN):
        raise UserError(f"{folder or workdir} is the folder of a run, and its results.json would be replaced: {OTHER_WORKDIR}")


def _temporary_folder() -> Path:
    """Return a new folder. It is in the user's cache if possible, because old files in the folder for temporary files may go."""
    return Path(tempfile.mkdtemp(prefix="run-", dir=cache_folder("runs")))


def _end(mirror: Mirror | None, folder: Path) -> None:
    """Remove the temporary folder of a run in a bucket."""
    if mirror:
        mirror.close()
    shutil.rmtree(folder, ignore_errors=True)


def _as_recorded(config: ConfigDict) -> ConfigDict:
    return ConfigDict(json.loads(config.to_json()))


def _flag(name: str, value: Any) -> str:
    """Return the flag that gives an option this value, or "" for a value that a flag cannot give."""
    return f": {shlex.quote(f'--config.{name}={value}')}" if isinstance(value, str | int | float) else ""
