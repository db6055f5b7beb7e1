"""Signs of life that a program gives to its supervisor, through a pipe: the supervisor then knows when it has frozen.

The watchdog of a program cannot act if the process is frozen, or if C++ code in it never releases Python's lock. So the
watchdog's thread gives a sign at each of its turns, and the supervisor judges by the time since the last one. A program that has
given none, or has said that no more will come, is not judged.
"""

import contextlib
import os
import select
import stat
from collections.abc import Callable

VARIABLE = "MIXER_JAX_SIGNS"  # FILE_DESCRIPTOR:INODE of the pipe, in the environment of the program.
ALIVE, LEAVING = b"a", b"l"


class Signs:
    """The program's end of the pipe. Without a supervisor, nothing is written."""

    def __init__(self) -> None:
        self._descriptor = _find_pipe(os.environ.get(VARIABLE, ""))

    def give(self, sign: bytes = ALIVE) -> None:
        """Give a sign: ALIVE, or LEAVING if no more will come. A pipe that is full or closed is no fault."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, sign)


def _find_pipe(text: str) -> int | None:
    """Return the file descriptor of the pipe that the supervisor made, or None if this process has another file in its place."""
    number, _, inode = text.partition(":")
    if not (number.isdecimal() and inode.isdecimal()):
        return None
    with contextlib.suppress(OSError):
        status = os.fstat(int(number))
        if stat.S_ISFIFO(status.st_mode) and status.st_ino == int(inode):
            os.set_blocking(int(number), False)
            os.set_inheritable(int(number), False)
            return int(number)
    return None


def make_pipe() -> tuple[int, int, str]:
    """Return the ends of a new pipe, for reading and for writing, and what VARIABLE is for a program that gets the latter."""
    reading, writing = os.pipe()
    return reading, writing, f"{writing}:{os.fstat(writing).st_ino}"


def listen(descriptor: int, max_seconds: float, end_silence: Callable[[], None]) -> None:
    """Read signs until the pipe ends. If none comes for `max_seconds` after a sign of ALIVE, call `end_silence` and return.

    0 means no bound.
    """
    timeout = None
    try:
        while select.select([descriptor], [], [], timeout)[0]:
            signs = os.read(descriptor, 4096)
            if not signs:
                return
            timeout = max_seconds if max_seconds and signs.endswith(ALIVE) else None
        end_silence()
    finally:
        os.close(descriptor)
