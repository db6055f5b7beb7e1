"""Writes to the terminal without a buffer, so that several threads and a handler of signals may do so at once."""

import contextlib
import os
from typing import TextIO


def write_all(terminal: TextIO | None, text: bytes) -> None:
    """Write to a terminal, or what stands for it. It may be closed or gone."""
    with contextlib.suppress(OSError):
        while terminal and text:
            text = text[os.write(terminal.fileno(), text) :]
