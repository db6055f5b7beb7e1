"""A folder has one owner, which is named to others. It is free when its owner is gone."""

import errno
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from mixer_jax.app import TRY_AGAIN, ending
from mixer_jax.errors import UserError
from mixer_jax.lease import NO_LOCKS, HeldError, Lease

OWNER = """
import pathlib, sys, time
from mixer_jax.errors import UserError
from mixer_jax.lease import Lease
lease = Lease(pathlib.Path(sys.argv[1]))
print(flush=True)
time.sleep(60)
"""


def test_a_second_owner_is_refused_and_told_of_the_first(tmp_path):
    lease = Lease(tmp_path / ".lock")
    for shared in (False, True):
        with pytest.raises(HeldError, match=f"process {os.getpid()} on "):
            Lease(tmp_path / ".lock", shared)
    lease.close()
    Lease(tmp_path / ".lock")


def test_shared_leases_exclude_only_one_that_is_not_shared(tmp_path):
    Lease(tmp_path / ".lock").close()
    first, second = Lease(tmp_path / ".lock", shared=True), Lease(tmp_path / ".lock", shared=True)
    for lease in (first, second):
        with pytest.raises(HeldError, match="another process"):
            Lease(tmp_path / ".lock")
        lease.close()
    Lease(tmp_path / ".lock")


def test_a_lease_ends_with_its_object(tmp_path):
    lease = Lease(tmp_path / ".lock")
    del lease
    Lease(tmp_path / ".lock")


def test_a_lease_ends_with_its_process_however_it_dies(tmp_path):
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path / ".lock"], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        owner.stdout.readline()
        with pytest.raises(HeldError, match=f"process {owner.pid} on "):
            Lease(tmp_path / ".lock")
        owner.kill()
    Lease(tmp_path / ".lock")


@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
@pytest.mark.parametrize("shared", [False, True])
def test_a_disk_without_locks_is_told_as_such_and_not_as_another_owner(tmp_path, monkeypatch, number, shared):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"The disk of .* has no file locks \(.*Choose a folder on another disk"):
        Lease(tmp_path / ".lock", shared)


def test_a_disk_that_fails_while_it_locks_is_named(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OSError, match="Input/output") as error:
        Lease(tmp_path / ".lock")
    assert ending(error.value).code == TRY_AGAIN and error.value.filename == str(tmp_path / ".lock")


def test_a_full_disk_is_told_with_the_name_of_the_lock(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.write", fail)
    with pytest.raises(OSError, match="No space left") as error:
        Lease(tmp_path / ".lock")
    assert error.value.filename == str(tmp_path / ".lock")


def test_a_lock_that_is_a_link_is_refused_and_what_it_points_at_stays(tmp_path):
    (tmp_path / "canary").write_text("whole")
    (tmp_path / ".lock").symlink_to(tmp_path / "canary")
    with pytest.raises(UserError, match=r"\.lock is a link"):
        Lease(tmp_path / ".lock")
    assert (tmp_path / "canary").read_text() == "whole"
