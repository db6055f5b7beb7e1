"""The TPU compiler as a service: where it lies, and a process that has it, with a bound on how long it may take.

libtpu comes in a place of its own (`make plan`): beside JAX it would make every run look for TPUs. Only the worker sees it. It
needs no network and no metadata server.
"""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryFile

import jax

from mixer_jax.errors import UserError
from mixer_jax.planning.worker import Request
from mixer_jax.storage import cache_folder

FOLDER = Path(__file__).parents[2] / ".venv-plan"  # `make plan`
TIMEOUT_SECONDS = 1200  # of one program; the slowest of ours, H/14 on v5e, takes some minutes


def find_compiler() -> tuple[Path, str]:
    """(libtpu.so, versions of what estimates). Raises UserError saying what to install."""
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
        self._timeout_seconds, self._process, self._log = timeout_seconds, None, None

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(self, *exception) -> None:
        self._stop()

    def compile(self, request: Request) -> dict:
        """What worker.compile_program returns. Raises UserError for what cannot be, a failure, or being too late."""
        process = self._start()
        late = threading.Event()

        def stop_it() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._timeout_seconds, stop_it)
        timer.start()
        try:
            pickle.dump(request, process.stdin)
            process.stdin.flush()
            kind, answer = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code, self._process = process.wait(), None
            what = f"took more than {self._timeout_seconds:g} s" if late.is_set() else f"ended with {code}:\n{self._last_words()}"
            raise UserError(f"The TPU compiler ({self.version}) {what}.") from None
        finally:
            timer.cancel()
        if kind == "ok":
            if not answer["cached"]:
                self._stop()  # the compiler never gives back its memory, some gigabytes for a large program
            return answer
        raise UserError(answer if kind == "refused" else f"The TPU compiler ({self.version}) failed. {answer}")

    def _start(self) -> subprocess.Popen:
        if self._process:
            return self._process
        self._log = TemporaryFile()  # noqa: SIM115  as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mixer_jax.planning.worker", cache_folder("planned"), self.version],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ
            | {
                "TPU_LIBRARY_PATH": str(self.library),
                "TPU_SKIP_MDS_QUERY": "1",
                "JAX_PLATFORMS": "cpu",
                "TPU_WORKER_HOSTNAMES": "",
                "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            }
            | {"PYTHONPATH": os.pathsep.join(map(str, sys.path)), "XLA_FLAGS": ""},
        )
        return self._process

    def _stop(self) -> None:
        if self._process:
            self._process.stdin.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _last_words(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-5:])
