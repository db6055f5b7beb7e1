"""Reads TensorBoard event files back, without TensorFlow or TensorBoard."""

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def read_scalars(directory: Path) -> dict[str, dict[int, float]]:
    """{tag: {step: value}} of all event files in a folder."""
    scalars: dict[str, dict[int, float]] = {}
    for file in sorted(directory.glob("events.*")):
        data = file.read_bytes()
        while data:  # a record is: length, its checksum, an Event, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                scalars.setdefault(value.tag, {})[event.step] = value.simple_value
    return scalars
