"""A folder or a path of a bucket has one owner, which is named to others. It is free when its owner is gone."""

import contextlib
import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT
from stand_ins.cloud_faults import LoseAnswer, Refuse

import mixer_jax.lease
from mixer_jax.bucket import Bucket
from mixer_jax.endings import TRY_AGAIN, ending
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.lease import LEASE, NO_LOCKS, BucketLease, HeldError, Lease

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


@pytest.fixture
def bucket(cloud, monkeypatch) -> Bucket:
    monkeypatch.setattr(mixer_jax.lease, "RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(mixer_jax.lease, "EXPIRY_SECONDS", 2)
    monkeypatch.setattr(mixer_jax.lease, "POLL_SECONDS", 0.05)
    return Bucket("gs://bucket/run")


def asleep(bucket: Bucket, monkeypatch) -> BucketLease:
    """Return the lease of a process that renews nothing, as one that was stopped."""
    with monkeypatch.context() as patch:
        patch.setattr(mixer_jax.lease, "RENEWAL_SECONDS", 1000)
        return BucketLease(bucket)


def test_a_second_owner_in_a_bucket_is_refused_until_the_first_is_done(bucket):
    first = BucketLease(bucket)
    first.check()
    with pytest.raises(HeldError, match=f"process {os.getpid()} on "):
        BucketLease(bucket)
    first.close()
    assert bucket.names() == []
    BucketLease(bucket).check()


def test_a_zombie_that_wakes_up_is_told_and_takes_nothing_back(bucket, monkeypatch):
    zombie = asleep(bucket, monkeypatch)
    heir = BucketLease(bucket)
    with pytest.raises(EnvironmentFault, match=r"gs://bucket/run belongs to process .* now, because this process"):
        zombie.check()
    zombie.close()
    heir.check()
    assert heir.owner in bucket.read(LEASE).decode()


def test_a_sleeper_whose_lease_nobody_took_goes_on(bucket, monkeypatch):
    sleeper = asleep(bucket, monkeypatch)
    time.sleep(mixer_jax.lease.EXPIRY_SECONDS + 0.1)
    sleeper.check()


@pytest.mark.parametrize("faults", [LoseAnswer(share=0.4), Refuse(share=0.4)], ids=["lost answers", "refusals"])
def test_faults_cost_nobody_the_lease(bucket, cloud, faults):
    with cloud.failing(faults):
        held = BucketLease(bucket)
        for _ in range(20):
            held.check()
        with pytest.raises(HeldError):
            BucketLease(bucket)
        held.close()
    assert bucket.names() == []


def test_a_renewal_that_seemed_to_fail_is_still_ours(bucket, monkeypatch):
    held = asleep(bucket, monkeypatch)
    write = bucket.write_if_unchanged

    def take_effect_and_fail(*arguments: object) -> None:
        write(*arguments)
        raise EnvironmentFault("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "write_if_unchanged", take_effect_and_fail)
        with pytest.raises(EnvironmentFault, match="no answer"):
            held.check()
    held.check()


def test_a_lease_that_is_rubbish_expires(bucket, cloud):
    cloud.objects["bucket", f"run/{LEASE}"] = b"[]"
    BucketLease(bucket).check()


def test_of_many_that_take_over_a_dead_lease_one_wins(bucket, cloud):
    cloud.objects["bucket", f"run/{LEASE}"] = b'{"owner": "a dead one", "nonce": "1"}'
    won = []

    def start(_: int) -> None:
        with contextlib.suppress(HeldError):
            won.append(BucketLease(bucket))

    with ThreadPoolExecutor(16) as starters:
        list(starters.map(start, range(16)))
    assert len(won) == 1
    won[0].check()
