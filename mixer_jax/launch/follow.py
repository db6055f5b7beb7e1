"""Reads what a run has left in its folder: the hosts' signs of life, and their logs."""

import time
from collections.abc import Iterator
from typing import Any

from mixer_jax.errors import UserError
from mixer_jax.storage import MAX_JSON_BYTES, Storage, open_storage, parse_json
from mixer_jax.text_table import format_table

DEAD_SECONDS = 60  # A host without a sign of life for so long is not alive. It writes one every 10 s, and every 30 s to a bucket.
POLL_SECONDS = 5.0
MAX_LOG_BYTES = 2**30
FIELDS = {  # Of a sign of life (supervision/heartbeat.py), with their types.
    "host": int,
    "machine": str,
    "phase": str,
    "step": int | None,
    "step_time": float | int | None,
    "time": float | int,
}


def heartbeats(workdir: str) -> list[dict[str, Any]]:
    """Return the last sign of life of each host of a run, by the number of the host. Raises UserError for a damaged one."""
    storage, beats = open_storage(f"{workdir}/hosts"), []
    for name in storage.names():
        text = storage.read_whole(name, MAX_JSON_BYTES) if name.endswith(".json") else None
        if text is None:
            continue
        beat = parse_json(text, f"{storage.url}/{name}")
        if not all(isinstance(beat.get(field), kind) for field, kind in FIELDS.items()):
            raise UserError(f"{storage.url}/{name} is damaged: it is no sign of life. Remove it; its host writes it anew.")
        beats.append(beat)
    return sorted(beats, key=lambda beat: beat["host"])


def format_heartbeats(beats: list[dict[str, Any]], now: float) -> str:
    """Return a table with a row for each host: its phase and step, and the age of its signs of life."""
    rows = [["host", "machine", "alive", "phase", "step", "since its last step", "since its last sign"]]
    for beat in beats:
        age = now - beat["time"]
        step_age = None if beat["step_time"] is None else f"{now - beat['step_time']:.0f} s"
        alive = "yes" if age < DEAD_SECONDS else "no"
        rows.append([beat["host"], beat["machine"], alive, beat["phase"], beat["step"], step_age, f"{age:.0f} s"])
    return format_table(rows, "><<<>") if beats else "No host has given a sign of life yet."


def log_lines(workdir: str, follow: bool) -> Iterator[str]:
    """Yield the lines of all hosts' logs, each after the name of its host, file by file. With `follow`, go on for ever.

    The log of a host in a bucket is uploaded every 30 s, so lines come that late.
    """
    storage, logs = open_storage(f"{workdir}/logs"), {}
    while True:
        for name in sorted(storage.names(), key=_age_of_log):
            log = logs.setdefault(name, _Log(storage, name))
            yield from log.new_lines(is_last=not follow)
        if not follow:
            return
        time.sleep(POLL_SECONDS)


def _age_of_log(name: str) -> tuple[int, str]:
    """Return a key that sorts logs, HOST-UNIXTIME.log, by their time."""
    number = name.removesuffix(".log").rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0, name)


class _Log:
    """One log and how far it has been read."""

    def __init__(self, storage: Storage, name: str):
        self._storage, self._name, self._read = storage, name, 0
        self._generation: bytes | None = None

    def new_lines(self, is_last: bool) -> Iterator[str]:
        """Yield the lines that are new. One that has no end yet is left for the next time, unless there is none."""
        generation = self._storage.generation(self._name)
        if generation == self._generation:
            return
        text = (self._storage.read_whole(self._name, MAX_LOG_BYTES) or b"")[self._read :]
        if not is_last:
            text = text[: text.rfind(b"\n") + 1]
        self._generation, self._read = generation, self._read + len(text)
        host = self._name.rpartition("-")[0]
        for line in text.decode(errors="replace").splitlines():
            yield f"{host} | {line}"
