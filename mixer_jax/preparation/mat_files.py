"""The .mat files of public data sets, read by SciPy in a process whose memory and time are bounded.

A .mat file of some hundred bytes can declare arrays of any size, also in parts that are compressed or nested, and SciPy takes the
memory for them before it reads their values.
"""

import io
import os
import resource
import sys
from typing import Any

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.worker_process import WorkerError, WorkerProcess, serve

MAX_MAT_BYTES = 2**24  # meta.mat of ILSVRC2012, the largest, has 0.3 MB
MEMORY_BYTES = 2**28  # for the content, beside that of Python and SciPy
TIMEOUT_SECONDS = 60


def read_mat(content: bytes) -> dict[str, list]:
    """Return the variables of a .mat file: of numbers, the list of all values; of a struct array, a dict of each element.

    Raises UserError when it is damaged or would take more than MEMORY_BYTES.
    """
    environment = {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    process = WorkerProcess([sys.executable, "-m", "mixer_jax.preparation.mat_files"], environment, TIMEOUT_SECONDS)
    try:
        return process.ask(content)
    except WorkerError as error:
        raise UserError(f"A .mat file is damaged, or of a form that SciPy does not read: it {error}. Copy it again.") from error
    finally:
        process.close()


def _read(content: bytes) -> dict[str, list]:
    from scipy.io import loadmat  # heavy, and only the worker needs it

    _bound_memory()
    variables = loadmat(io.BytesIO(content), squeeze_me=True)
    return {name: list(map(_plain, np.ravel(value))) for name, value in variables.items() if not name.startswith("__")}


def _bound_memory() -> None:
    """Make allocations fail once they need MEMORY_BYTES more than the process has now, on Linux."""
    if sys.platform != "linux":
        return
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, resource.RLIM_INFINITY))


def _plain(value: Any) -> Any:
    """Return a number or text as Python's own, an element of a struct array as a dict of these, and anything else as None."""
    if isinstance(value, np.void) and value.dtype.names:
        return {name: _plain(value[name]) for name in value.dtype.names}
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float) else None


if __name__ == "__main__":
    serve(_read)
