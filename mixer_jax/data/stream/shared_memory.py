"""The memory of batches: arrays of this process or, where other processes fill them, memory that all of them see.

Not here: the processes (workers.py).
"""

import itertools
import math
import mmap
import os
import weakref
from functools import cache

import numpy as np

ALIGNMENT = 64  # bytes, of the arrays: XLA on a CPU then takes them as they lie

Spec = dict[str, tuple[tuple[int, ...], np.dtype]]
"""{name: (shape, dtype)}"""


class Batches:
    """New arrays of a `spec`, yet to be filled. Where `shared`, processes can be given them: pickled, they are their place alone.

    That is memory of Linux. To make it costs more than to fill it, so it comes back when nobody holds its arrays any more.
    """

    def __init__(self, spec: Spec, *, shared: bool):
        self._spec, self._shared = spec, shared
        self._files: dict[int, mmap.mmap] = {}
        self._free: list[int] = []

    def new(self) -> dict[str, np.ndarray]:
        if not self._shared:
            return {name: np.empty(*each) for name, each in self._spec.items()}
        file = self._free.pop() if self._free else self._make()
        memory = np.frombuffer(self._files[file], np.uint8)
        weakref.finalize(memory, self._free.append, file)  # the arrays, and those that are made of them, are all parts of it
        return _Placed(_arrays(memory, self._spec), (f"/proc/{os.getpid()}/fd/{file}", tuple(self._spec.items())))

    def _make(self) -> int:
        file, size = os.memfd_create("batch"), sum(_bytes(each) for each in self._spec.values())
        os.truncate(file, size)
        self._files[file] = mmap.mmap(file, size)
        return file

    def __del__(self):
        for file in self._files:
            os.close(file)


class _Placed(dict):
    def __init__(self, arrays: dict[str, np.ndarray], place: tuple):
        super().__init__(arrays)
        self._place = place

    def __reduce__(self):
        return _placed, self._place


@cache
def _placed(path: str, spec: tuple) -> dict[str, np.ndarray]:
    with open(path, "r+b") as file:
        return _arrays(np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8), dict(spec))


def _arrays(memory: np.ndarray, spec: Spec) -> dict[str, np.ndarray]:
    """One after the other in `memory`, uint8."""
    ends = itertools.accumulate(_bytes(each) for each in spec.values())
    return {name: np.ndarray(*each, memory, end - _bytes(each)) for (name, each), end in zip(spec.items(), ends, strict=True)}


def _bytes(array: tuple[tuple[int, ...], np.dtype]) -> int:
    shape, dtype = array
    return -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
