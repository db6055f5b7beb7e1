"""TensorBoard's event files of a run: the numbers of metrics.jsonl once more, without gaps whatever happened to the run.

A kill may come after a line of metrics.jsonl is written and before its events are, and a file may be damaged. So each start reads
the events that are there, and writes again all from the first step on that lacks a number.
"""

import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from mixer_jax.storage import naming, read_bytes

MAX_FILE_BYTES = 2**33
Points = set[tuple[int, str]]  # (step, name) of numbers


class TensorBoard:
    """One new event file, which replaces what earlier ones have after `last_step`, and what of `rows` they lack.

    `rows` are those of metrics.jsonl up to `last_step`.

    Everything is on the disk when `write` returns. tensorboardX's own SummaryWriter leaves that to a thread; where a disk is full
    this thread ends, and the run would wait for it forever.
    """

    def __init__(self, folder: Path, last_step: int, rows: Iterable[Mapping[str, Any]] = ()):
        folder.mkdir(exist_ok=True)
        written = read_points(folder)
        rows = sorted(rows, key=lambda row: row["step"])
        lacking = (row["step"] for row in rows if any((row["step"], name) not in written for name in numbers(row)))
        first_step = next(lacking, last_step + 1)
        self._folder, self._writer = folder, EventsWriter(str(folder / "events"))
        self._write([Event(step=first_step, session_log=SessionLog(status=SessionLog.START))])
        for row in rows:
            if row["step"] >= first_step:
                self.write(row["step"], numbers(row))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of a step by name."""
        self._write([Event(step=step, summary=scalar(name, value)) for name, value in values.items()])

    def close(self) -> None:
        """End the file."""
        self._writer.close()

    def _write(self, events: list[Event]) -> None:
        with naming(self._folder):
            for event in events:
                event.wall_time = time.time()
                self._writer.write_event(event)
            self._writer.flush()


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what of a row of metrics.jsonl TensorBoard can show."""
    return {name: value for name, value in row.items() if name != "step" and isinstance(value, int | float)}


def read_points(folder: Path) -> Points:
    """Return which numbers the event files in a folder have, as TensorBoard reads them: a START replaces all from its step on."""
    points: Points = set()
    for file in sorted(folder.glob("events.*")):
        for event in _read_events(read_bytes(file, MAX_FILE_BYTES)):
            if event.session_log.status == SessionLog.START:
                points = {(step, name) for step, name in points if step < event.step}
            points |= {(event.step, value.tag) for value in event.summary.value}
    return points


def _read_events(content: bytes) -> Iterable[Event]:
    """Yield the events of a file up to the first that is damaged. A record is: length, its checksum, an event, its checksum."""
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        try:
            event = Event.FromString(content[start + 12 : start + 12 + length])
        except DecodeError:
            return
        start += 16 + length
        if start > len(content):
            return
        yield event
