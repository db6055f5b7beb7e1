"""The memory of batches: arrays of this process or, if worker processes fill them (workers.py), arrays in shared memory."""

import itertools
import math
import mmap
import os
import weakref
from functools import cache

import numpy as np

ALIGNMENT = 64  # bytes; XLA on a CPU uses an array with this alignment without a copy

ArraySpec = tuple[tuple[int, ...], np.dtype]
"""(shape, dtype)"""


class BatchMemory:
    """Memory for batches whose arrays have the shapes and dtypes of `spec`, by name.

    If `shared`, the arrays live in shared memory (Linux's memfd) and pickle as a reference, so worker processes can fill them.
    It takes longer to create shared memory than to fill it, so the memory of a batch is used again when its arrays are gone.
    """

    def __init__(self, spec: dict[str, ArraySpec], *, shared: bool):
        self._spec, self._shared = spec, shared
        self._mappings: dict[int, mmap.mmap] = {}  # by file descriptor
        self._free: list[int] = []

    def allocate(self) -> dict[str, np.ndarray]:
        """Return the arrays of one batch, with arbitrary content."""
        if not self._shared:
            return {name: np.empty(shape, dtype) for name, (shape, dtype) in self._spec.items()}
        descriptor = self._free.pop() if self._free else self._map_new()
        memory = np.frombuffer(self._mappings[descriptor], np.uint8)
        # The arrays of the batch, and all views of them, refer to `memory`, so it is finalized when the last of them is gone.
        weakref.finalize(memory, self._free.append, descriptor)
        return _SharedBatch(_arrays_within(memory, self._spec), f"/proc/{os.getpid()}/fd/{descriptor}", tuple(self._spec.items()))

    def _map_new(self) -> int:
        descriptor, size = os.memfd_create("batch"), sum(_aligned_bytes(array) for array in self._spec.values())
        os.truncate(descriptor, size)
        self._mappings[descriptor] = mmap.mmap(descriptor, size)
        return descriptor

    def __del__(self, close=os.close):  # When the program ends, the module may have lost its `os` before this runs.
        for descriptor in self._mappings:
            close(descriptor)


class _SharedBatch(dict):
    """Arrays in shared memory. They pickle as the path of the memory and their spec."""

    def __init__(self, arrays: dict[str, np.ndarray], path: str, spec: tuple):
        super().__init__(arrays)
        self._reference = path, spec

    def __reduce__(self):
        return _open_shared, self._reference


@cache
def _open_shared(path: str, spec: tuple) -> dict[str, np.ndarray]:
    with open(path, "r+b") as file:
        return _arrays_within(np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8), dict(spec))


def _arrays_within(memory: np.ndarray, spec: dict[str, ArraySpec]) -> dict[str, np.ndarray]:
    """Return the arrays of `spec` as consecutive views of `memory`, uint8 [bytes]."""
    ends = itertools.accumulate(_aligned_bytes(array) for array in spec.values())
    return {
        name: np.ndarray(*array, memory, end - _aligned_bytes(array))
        for (name, array), end in zip(spec.items(), ends, strict=True)
    }


def _aligned_bytes(array: ArraySpec) -> int:
    shape, dtype = array
    return -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
