"""train.py and evaluate.py in processes of their own, as users start them: one, or several that are the hosts of one run."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mixer_jax.endings import DONE

ROOT = Path(__file__).parent.parent
# Without the emitters of fusions, XLA compiles a tiny training step in half the time (0.66 instead of 1.35 s).
QUICKLY_COMPILED = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
XLA_FLAGS = f"{QUICKLY_COMPILED} {os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count="
CONFIG = "--config=tests/tiny_config.py"
TIMINGS = {"images_per_sec", "images_per_sec_per_device", "data_wait_share", "mfu"}


def start(*flags: str, config: str = CONFIG, devices: int = 2, program: str = "train.py", **variables: str) -> subprocess.Popen:
    """Start a program. One that is no file's name is Python code."""
    code = [program] if program.endswith(".py") else ["-c", program]
    return start_python([*code, config, *flags], devices, **variables)


def start_python(arguments: Sequence[str], devices: int, stdin: int | None = None, **variables: str) -> subprocess.Popen:
    """Start Python with these arguments, `devices` virtual devices, and these variables in its environment."""
    command, environment = [sys.executable, *arguments], os.environ | variables | {"XLA_FLAGS": f"{XLA_FLAGS}{devices}"}
    streams = {"text": True, "stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, preexec_fn=_hear_interrupts, **streams)


def _hear_interrupts() -> None:
    """Undo that a shell makes what it starts in the background, such as these tests, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: subprocess.Popen, code: int = DONE) -> str:
    """Wait for the end; return what was said."""
    output = process.communicate(timeout=200)[0]
    assert process.returncode == code, output
    return output


def without_timings(rows: Sequence[dict]) -> list[dict]:
    """Return rows of metrics.jsonl without the figures that depend on the speed of the machine."""
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in rows]


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until(condition: Callable[[], object], logs: Callable[[], str], seconds: float = 900) -> None:
    """Wait until a condition holds. Fail with the logs of what runs meanwhile if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, logs()
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start_two(
    *flags: str, second: tuple[str, ...] = (), programs: tuple[str, str] = ("train.py", "train.py"), **variables: str
) -> list[subprocess.Popen]:
    """The two processes of one run, with a device each; one is told of the other by flags, one by its environment.

    The second has the flags `second` too, and these `variables`.
    """
    address = f"localhost:{free_port()}"
    told = (f"--coordinator={address}", "--num_processes=2", "--process_id=0")
    environment = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    return [
        start(*told, *flags, devices=1, program=programs[0]),
        start(*flags, *second, devices=1, program=programs[1], **environment | variables),
    ]
