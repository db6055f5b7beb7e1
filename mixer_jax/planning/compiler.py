"""The TPU compiler as a service: where it lies, and a process that has it, with a bound on how long it may take.

libtpu comes in a folder of its own (`make plan`): beside JAX it would make every run look for TPUs. Only the worker sees it. It
needs no network and no metadata server.
"""

import os
import sys
from pathlib import Path

import jax

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.planning.worker import Request
from mixer_jax.storage import cache_folder
from mixer_jax.worker_process import WorkerError, WorkerLostError, WorkerProcess

FOLDER = Path(__file__).parents[2] / ".venv-plan"  # `make plan`
TIMEOUT_SECONDS = 1200  # of one program; the slowest of ours, H/14 on v5e, takes some minutes


def find_compiler() -> tuple[Path, str]:
    """Return (libtpu.so, the versions of what estimates). Raises UserError saying what to install."""
    given = os.environ.get("TPU_LIBRARY_PATH")
    library = Path(given) if given else FOLDER / "libtpu/libtpu.so"
    if not library.is_file():
        raise UserError(f"There is no TPU compiler in {library}. `make plan` installs it (about 200 MB; no TPU is needed).")
    metadata = next(library.parents[1].glob("libtpu-*.dist-info"), None)
    version = metadata.name.removesuffix(".dist-info").removeprefix("libtpu-") if metadata else "of unknown version"
    return library, f"libtpu {version}, jax {jax.__version__}"


class Compiler:
    """Compiles one request after the other, in a process that ends with each program that was not known before."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS):
        self.library, self.version = find_compiler()
        self._timeout_seconds = timeout_seconds
        self._worker: WorkerProcess | None = None

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(self, *exception) -> None:
        self._stop()

    def compile(self, request: Request) -> dict:
        """Return what worker.compile_program returns. Raises UserError for what cannot be, EnvironmentFault for a lost worker."""
        self._worker = self._worker or self._start()
        try:
            answer = self._worker.ask(request)
        except WorkerError as error:
            self._stop()
            kind = EnvironmentFault if isinstance(error, WorkerLostError) else UserError
            raise kind(f"The TPU compiler ({self.version}) {error}.") from None
        if not answer["cached"]:
            self._stop()  # the compiler never gives back its memory, some gigabytes for a large program
        return answer

    def _start(self) -> WorkerProcess:
        environment = {
            "TPU_LIBRARY_PATH": str(self.library),
            "TPU_SKIP_MDS_QUERY": "1",
            "JAX_PLATFORMS": "cpu",
            "TPU_WORKER_HOSTNAMES": "",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
            "XLA_FLAGS": "",
        }
        command = [sys.executable, "-m", "mixer_jax.planning.worker", str(cache_folder("planned")), self.version]
        return WorkerProcess(command, environment, self._timeout_seconds)

    def _stop(self) -> None:
        if self._worker:
            self._worker.close()
            self._worker = None
