"""The TPU compiler as a service: where libtpu is installed, and the worker process that compiles with it under a time limit.

`make plan` installs libtpu in a folder of its own, because installed beside JAX it would make every run look for TPUs. Only the
worker process loads it. The compiler needs no network and no metadata server.
"""

import os
import sys
from pathlib import Path

import jax

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.planning.worker import Request
from mixer_jax.storage import cache_folder
from mixer_jax.worker_process import WorkerError, WorkerLostError, WorkerProcess

FOLDER = Path(__file__).parents[2] / ".venv-plan"  # `make plan` installs libtpu here.
TIMEOUT_SECONDS = 1200  # The limit for one program. The slowest of ours, H/14 on v5e, takes some minutes.


def find_compiler() -> tuple[Path, str]:
    """Return the path of libtpu.so, and the versions of libtpu and JAX as text.

    Raises UserError, which names the command that installs libtpu, if the file is missing.
    """
    given = os.environ.get("TPU_LIBRARY_PATH")
    library = Path(given) if given else FOLDER / "libtpu/libtpu.so"
    if not library.is_file():
        raise UserError(f"There is no TPU compiler in {library}. `make plan` installs it (about 200 MB; no TPU is needed).")
    metadata = next(library.parents[1].glob("libtpu-*.dist-info"), None)
    version = metadata.name.removesuffix(".dist-info").removeprefix("libtpu-") if metadata else "of unknown version"
    return library, f"libtpu {version}, jax {jax.__version__}"


class Compiler:
    """The TPU compiler, which takes one request after the other in a worker process.

    The worker ends after each program that was not in the cache, and the next request starts another: the compiler never gives
    back its memory, which is some gigabytes for a large program.
    """

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS):
        self.library, self.version = find_compiler()
        self._timeout_seconds = timeout_seconds
        self._worker: WorkerProcess | None = None

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(self, *exception) -> None:
        self._stop()

    def compile(self, request: Request) -> dict:
        """Return the figures of one program, as worker.compile_program returns them.

        Raises UserError if the worker refuses the request or fails on it, and EnvironmentFault if the worker dies or is too late.
        """
        self._worker = self._worker or self._start()
        try:
            answer = self._worker.ask(request)
        except WorkerError as error:
            self._stop()
            kind = EnvironmentFault if isinstance(error, WorkerLostError) else UserError
            raise kind(f"The TPU compiler ({self.version}) {error}.") from None
        if not answer["cached"]:
            self._stop()
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
        command = [sys.executable, "-m", "mixer_jax.planning.worker", str(cache_folder("planned") or ""), self.version]
        return WorkerProcess(command, environment, self._timeout_seconds)

    def _stop(self) -> None:
        if self._worker:
            self._worker.close()
            self._worker = None
