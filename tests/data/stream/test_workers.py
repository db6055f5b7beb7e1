"""Workers: their errors and deaths reach the run, they end with it, and they read the same records from a source."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import cloudpickle
import numpy as np
import pytest
from conftest import ROOT
from data import tfds_miniature
from data.sources.test_vtab import SIZES

from benchmarks.memory import make_split
from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.workers import worker_pool
from mixer_jax.errors import EnvironmentFault, UserError


def of_sign(x: int) -> int:
    if x < 0:
        raise UserError(f"{x} is negative")
    if x == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * x


@pytest.mark.parametrize("processes", [False, True])
def test_what_a_worker_returns_or_raises_reaches_the_run(processes):
    with worker_pool(of_sign, 2, processes) as submit:
        assert [each.result() for each in [submit(x) for x in (1, 2, 3)]] == [2, 4, 6]
        with pytest.raises(UserError, match="-1 is negative"):
            submit(-1).result()


def test_a_worker_that_dies_ends_the_run_with_a_message_and_the_others():
    with (
        pytest.raises(EnvironmentFault, match=r"has died.*fewer --config\.loader\.workers.*start the same command again"),
        worker_pool(of_sign, 3, True) as submit,
    ):
        assert [each.result() for each in [submit(x) for x in (1, 2, 3)]] == [2, 4, 6]
        submit(0).result()
    assert not multiprocessing.active_children()


PROGRAM = """
import os, time
from mixer_jax.data.stream.workers import worker_pool
def pid(_):
    time.sleep(0.1)
    return os.getpid()
if __name__ == "__main__":
    with worker_pool(pid, 2, True) as submit:
        print(*{each.result() for each in [submit(i) for i in range(4)]}, flush=True)
        time.sleep(60)
"""


def test_workers_end_with_a_run_that_is_killed(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = subprocess.Popen([sys.executable, tmp_path / "program.py"], env=environment, stdout=subprocess.PIPE, text=True)
    workers = [int(each) for each in program.stdout.readline().split()]
    assert len(workers) == 2 and all(map(runs, workers))
    program.kill()
    deadline = time.monotonic() + 20
    while any(map(runs, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    program.communicate()


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("data")
    tfds_miniature.make(folder, "cifar100", SIZES["cifar100"])
    options = {"data_dir": str(folder), "num_examples": 20}
    found = {uri: dataset(uri, "train", **options) for uri in ("digits", "glyphs", "tfds:cifar100")}
    found["vtab:cifar100"] = dataset("vtab:cifar100", "train800", **options)
    make_split(folder, records=20, records_per_shard=8)
    found["records"] = dataset(f"records:{folder}", "train[2:]")
    return {name: open_source(config) for name, config in found.items()}


@pytest.mark.parametrize("name", ["digits", "glyphs", "records", "tfds:cifar100", "vtab:cifar100"])
def test_a_source_reads_the_same_in_another_process(sources, name):
    source = sources[name]
    expected = source[3]
    other = cloudpickle.loads(cloudpickle.dumps(source))
    np.testing.assert_array_equal(np.frombuffer(other[3].image, np.uint8), np.frombuffer(expected.image, np.uint8))
    assert other[3].labels == expected.labels and len(other) == len(source)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, UserError),
        (errno.EACCES, UserError),
        (errno.EROFS, UserError),
        (None, UserError),
        (errno.ENOSPC, EnvironmentFault),
        (errno.EMFILE, EnvironmentFault),
        (errno.EAGAIN, EnvironmentFault),
    ],
)
def test_where_no_process_can_be_started_it_is_said_what_they_need(monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, os.strerror(number)) if number else OSError("AF_UNIX path too long")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", fail)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(kind, match=r"cannot be started \(.*TMPDIR.*/dev/shm.*loader\.processes=false"), worker_pool(len, 1, True):
        pass
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
