"""The worker process of the compiler starts when needed, has a time limit, and its failures are reported.

A small program takes the worker's place in these tests.
"""

import sys
from pathlib import Path

import pytest

from mixer_jax import worker_process
from mixer_jax.config import default_config
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.worker import Request

REQUEST = Request(default_config(), "v3:2x2")
ANSWERS = """
import pickle, sys
while True:
    pickle.load(sys.stdin.buffer)
    pickle.dump({answer}, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Return a function that takes the text of a program and returns a Compiler that runs this program as its worker."""
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu/libtpu.so").touch()
    (tmp_path / "libtpu-0.0.1.dist-info").mkdir()
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu/libtpu.so"))
    start = worker_process.subprocess.Popen

    def make(program: str, **options) -> Compiler:
        monkeypatch.setattr(
            worker_process.subprocess, "Popen", lambda command, **pipes: start([sys.executable, "-c", program], **pipes)
        )
        return Compiler(**options)

    return make


def test_answers_come_from_one_process_until_it_has_compiled(stand_in):
    with stand_in(ANSWERS.format(answer='("answered", {"cached": True, "flops": 3})')) as made:
        assert made.compile(REQUEST) == made.compile(REQUEST) == {"cached": True, "flops": 3}
        first = made._worker._process
        assert first.poll() is None
    assert first.poll() is not None
    with stand_in(ANSWERS.format(answer='("answered", {"cached": False})')) as made:
        made.compile(REQUEST)
        assert made._worker is None
        made.compile(REQUEST)


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("import time; time.sleep(60)", EnvironmentFault, "took more than 0.5 s"),
        ("import os; os.write(2, b'out of luck'); os._exit(7)", EnvironmentFault, "ended with 7:\nout of luck"),
        (ANSWERS.format(answer='("refused", "There is no topology")'), UserError, "^There is no topology"),
        (ANSWERS.format(answer='("failed", "InternalError: 5")'), UserError, "failed. InternalError: 5"),
    ],
)
def test_being_late_ending_refusing_and_failing_are_told_with_the_version(stand_in, program, kind, message):
    with stand_in(program, timeout_seconds=0.5 if "sleep" in program else 60) as made, pytest.raises(kind, match=message):
        made.compile(REQUEST)
    assert made.version.startswith("libtpu 0.0.1, jax ")


def test_a_compiler_that_is_not_there_is_refused_with_what_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    with pytest.raises(UserError, match="make plan"):
        Compiler()
    assert not list(Path(tmp_path).iterdir())
