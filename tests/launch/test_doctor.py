"""`python -m mixer_jax doctor` on this machine, and each check where it must fail."""

import fcntl
import os
import sys
import time
from pathlib import Path

import pytest
from programs import free_port, start
from stand_ins.cloud_faults import Refuse

from mixer_jax.__main__ import main
from mixer_jax.endings import DONE, TRY_AGAIN
from mixer_jax.launch import doctor
from mixer_jax.launch.doctor import Failed, check_clock, check_devices, check_lockfile, check_room, lock_holder


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out.splitlines()

    return call


def test_a_healthy_host_has_a_line_for_each_check_and_ends_with_0(call, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_BYTES", {str(tmp_path): 1})
    code, lines = call(f"--workdir={tmp_path}/run")
    assert code == DONE and all(line.startswith("ok ") for line in lines), lines
    checks = [line.split(":")[0].split(maxsplit=1)[1] for line in lines]
    assert checks == ["hosts", "software", "lockfile", "devices", f"room in {tmp_path}", "folder", "clock"]


def test_one_check_that_fails_ends_with_1_and_does_not_keep_the_others_from_running(call, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_BYTES", {"/": 2**80})
    code, lines = call()
    assert code == TRY_AGAIN and [line.split()[0] for line in lines].count("FAILED") == 1
    assert lines[-1].startswith("FAILED room in /:") and "remove" in lines[-1]


def test_a_check_that_does_not_answer_fails(monkeypatch):
    monkeypatch.setattr(doctor, "CHECK_SECONDS", 0.1)
    assert doctor._with_deadline(lambda: time.sleep(60) or "") == (False, "no answer within 0.1 s")


def test_a_bucket_that_may_not_be_written_fails(call, cloud):
    with cloud.failing(Refuse((403,))):
        code, lines = call("--workdir=gs://bucket/run")
    (line,) = (line for line in lines if " folder: " in line)
    assert code == TRY_AGAIN and line.startswith("FAILED") and "gs://bucket/run" in line


def test_a_lockfile_that_is_held_names_its_process_and_one_that_is_not_says_what_to_type(tmp_path: Path):
    lockfile = tmp_path / "lockfile"
    assert check_lockfile(lockfile) == "none"
    lockfile.touch()
    with pytest.raises(Failed, match=f"rm {lockfile}"):
        check_lockfile(lockfile)
    with open(lockfile, "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        with pytest.raises(Failed, match=f"process {os.getpid()}"):
            check_lockfile(lockfile)
        with pytest.raises(Failed, match="not tried"):
            check_devices(lockfile)
        assert lock_holder(lockfile, Path("/proc/locks")) == str(os.getpid())


def test_a_tpu_that_jax_does_not_use_is_a_failure(tmp_path: Path):
    (tmp_path / "accel0").touch()
    with pytest.raises(Failed, match=r"requirements-tpu\.txt"):
        check_devices(tmp_path / "none", folder=tmp_path)


def test_room_is_compared_with_what_a_run_needs(tmp_path: Path):
    assert "GiB free" in check_room(str(tmp_path), 1)
    with pytest.raises(Failed, match="a run needs"):
        check_room(str(tmp_path), 2**80)


@pytest.mark.parametrize("workdir", ["gs://bucket/run", "disk"])
def test_a_clock_that_is_wrong_is_found(workdir: str, cloud, tmp_path, monkeypatch):
    workdir = workdir if workdir.startswith("gs:") else f"{tmp_path}/new/run"
    assert "within" in check_clock(workdir, cloud.url)
    monkeypatch.setattr(doctor, "_storage_time", lambda *_: time.time() - 90)
    with pytest.raises(Failed, match=r"9\d s from that"):
        check_clock(workdir, cloud.url)


@pytest.mark.slow
def test_two_hosts_compare_their_software_and_one_that_differs_is_named_on_both():
    address, differ = f"localhost:{free_port()}", "doctor.versions = lambda: {'jax': '0.0.1'}"
    code = "from mixer_jax.launch import doctor; import sys; {}; from mixer_jax.__main__ import main; del sys.argv[1]; main()"

    def doctors(*changes: str) -> list[str]:
        flags = ("doctor", f"--coordinator={address}", "--num-processes=2")
        processes = [
            start(*flags, f"--process-id={number}", program=code.format(change), devices=1)
            for number, change in enumerate(changes)
        ]
        return [process.communicate(timeout=100)[0] for process in processes]

    for number, output in enumerate(doctors("0", "0")):
        assert f"ok     hosts: host {number} of 2, all with the same code and versions" in output
    for output in doctors("0", differ):
        assert "FAILED hosts:" in output and "0.0.1" in output
