"""Reads the .mat files of public data sets with SciPy, in a process whose memory and time are bounded.

A .mat file of a few hundred bytes can declare arrays of any size, also in parts that are compressed or nested. SciPy allocates
the memory for these arrays before it reads their values.
"""

import io
import os
import sys
from typing import Any

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.worker_process import WorkerError, WorkerProcess, bound_memory, serve

MAX_MAT_BYTES = 2**24  # The largest of these files, meta.mat of ILSVRC2012, has 0.3 MB.
MEMORY_BYTES = 2**28  # for the content, in addition to the memory of Python and SciPy
TIMEOUT_SECONDS = 60


def read_mat(content: bytes) -> dict[str, list]:
    """Return {name of a variable: list of its values} from the content of a .mat file.

    The values of a numeric array are numbers. The values of a struct array are dicts. Raises UserError if the file is damaged,
    needs more than MEMORY_BYTES or takes longer than TIMEOUT_SECONDS.
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
    from scipy.io import loadmat  # The import is slow, and only the worker process needs it.

    bound_memory(MEMORY_BYTES)
    variables = loadmat(io.BytesIO(content), squeeze_me=True)
    return {name: list(map(_plain, np.ravel(value))) for name, value in variables.items() if not name.startswith("__")}


def _plain(value: Any) -> Any:
    """Return a value as plain Python: numbers and texts as they are, an element of a struct array as a dict, others as None."""
    if isinstance(value, np.void) and value.dtype.names:
        return {name: _plain(value[name]) for name in value.dtype.names}
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float) else None


if __name__ == "__main__":
    serve(_read)
