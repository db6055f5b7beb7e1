"""The record of a launch: on the laptop in the user's state folder, and beside the runs. It says where NAME is."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mixer_jax.errors import UserError
from mixer_jax.launch.commands import RECORD
from mixer_jax.launch.request import Request, check_name
from mixer_jax.storage import MAX_JSON_BYTES, open_storage, parse_json


class Record(NamedTuple):
    """What was launched.

    Attributes:
      launched: the time of the last launch in seconds since 1970.
      bundle, commit: the code.
      request: what the user asked for.
      counted_from: the time from which the hours of the launch count, in seconds since 1970.
    """

    launched: int
    bundle: str
    commit: str
    request: Request
    counted_from: float


def state_folder(name: str) -> str:
    """Return the folder of a launch on this machine, under XDG_STATE_HOME or ~/.local/state."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    return str((given if given.is_absolute() else Path("~/.local/state").expanduser()) / "mixer_jax/launches" / name)


def launch_folder(name: str, root: str) -> str:
    """Return the folder of a launch under `root` or, without one, on this machine."""
    return f"{root.rstrip('/')}/launches/{name}" if root else state_folder(name)


def read_record(name: str, root: str = "") -> Record:
    """Return the record of a launch on this machine or, with `root`, of one there.

    Raises UserError if there is none, or if it is damaged.
    """
    record, folder = find_record(name, root), launch_folder(name, root)
    if record is None:
        raise UserError(
            f"Nothing was launched as {name} from this machine: there is no {folder}/{RECORD}. If it was launched from another "
            "one, name its bucket or folder: --bucket=gs://BUCKET."
            if not root
            else f"Nothing was launched as {name} in {root}: there is no {folder}/{RECORD}."
        )
    return record


def find_record(name: str, root: str = "") -> Record | None:
    """Return what `read_record` returns, or None if there is no record. Raises UserError for a damaged one or a wrong name."""
    check_name(name)
    folder = launch_folder(name, root)
    text = open_storage(folder).read_whole(RECORD, MAX_JSON_BYTES)
    if text is None:
        return None
    record = parse_json(text, f"{folder}/{RECORD}")
    try:
        counted_from = record.get("counted_from", 0)  # Earlier versions did not write it, and counted all hours of the run.
        return Record(record["launched"], record["bundle"], record["commit"], Request(**record["request"]), counted_from)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}/{RECORD} is no record of a launch by this version ({error}).") from error


def forget(name: str, root: str) -> None:
    """Remove what a launch has written besides runs and bundles: under `root`, if it is not "", and on this machine.

    The record is the last file of each folder that is removed, and that of this machine is the last of all. So this can be
    repeated after it was cut off. What this machine knows of a launch of the same name elsewhere stays.
    """
    here = find_record(name)
    folders = [launch_folder(name, root)] if root else []
    if not here or here.request.root == root.rstrip("/"):
        folders.append(launch_folder(name, ""))
    for folder in folders:
        storage = open_storage(folder)
        for file in sorted(storage.names(), key=lambda file: file == RECORD):
            storage.delete(file)


def launched_names() -> Iterable[str]:
    """Return the names of what was launched from this machine."""
    folder = Path(state_folder(""))
    return sorted(file.parent.name for file in folder.glob(f"*/{RECORD}"))
