"""The TensorBoard event files of a run. They have the numbers of metrics.jsonl without gaps, whatever happened to the run.

A kill may come between the writing of a line of metrics.jsonl and of its events, and a file may be damaged. So each start reads
the events that are there, and writes all events again from the first step on that lacks a number.
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

from mixer_jax.storage import naming, open_regular

MAX_EVENT_BYTES = 2**20  # Ours have some hundred bytes. A longer event is taken for damage.
Points = set[tuple[int, str]]  # The step and the name of each number.


class TensorBoard:
    """The event file of one start of a run.

    Everything is on the disk when `write` returns. tensorboardX's SummaryWriter writes in a thread instead. That thread ends when
    a disk is full, and the run would wait for it forever.
    """

    def __init__(self, folder: Path, last_step: int, rows: Iterable[Mapping[str, Any]] = ()):
        """Begin a file that replaces the events of earlier files after `last_step`, and adds those of `rows` that they lack.

        `rows` are the lines of metrics.jsonl up to `last_step`.
        """
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
        """Write the numbers of a step, by name."""
        self._write([Event(step=step, summary=scalar(name, value)) for name, value in values.items()])

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, events: list[Event]) -> None:
        with naming(self._folder):
            for event in events:
                event.wall_time = time.time()
                self._writer.write_event(event)
            self._writer.flush()


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of a line of metrics.jsonl that TensorBoard can show."""
    return {name: value for name, value in row.items() if name != "step" and isinstance(value, int | float)}


def read_points(folder: Path) -> Points:
    """Return the numbers that TensorBoard shows for a folder of event files: a START event replaces all from its step on."""
    points: Points = set()
    for file in sorted(folder.glob("events.*")):
        for event in _read_events(file):
            if event.session_log.status == SessionLog.START:
                points = {(step, name) for step, name in points if step < event.step}
            points |= {(event.step, value.tag) for value in event.summary.value}
    return points


def _read_events(file: Path) -> Iterable[Event]:
    """Yield the events of a file up to the first that is damaged. A record is a length, its checksum, an event, its checksum."""
    with open_regular(file) as opened:
        while len(header := opened.read(12)) == 12:
            (length,) = struct.unpack_from("<Q", header)
            content = opened.read(min(length, MAX_EVENT_BYTES) + 4)
            if len(content) != length + 4:
                return
            try:
                yield Event.FromString(content[:-4])
            except DecodeError:
                return
