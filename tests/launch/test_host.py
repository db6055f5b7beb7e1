"""The startup script of a host, run as a host runs it, with a stand-in for Cloud Storage and one for Python."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from launch.requests import MOMENT, REQUESTS

from mixer_jax.launch.bundle import Bundle, make_bundle
from mixer_jax.launch.commands import host_script, job_text
from mixer_jax.launch.tpu import read_ended
from mixer_jax.storage import open_storage

PYTHON = r"""#!/bin/bash
# Stands for Python with supervise: it notes how it was called, and saves when it is asked to.
trap 'sleep 0.3; echo saved >> "$CALLED"; exit 75' TERM
printf '%s\n' "$PWD" "$A" "$@" > "$CALLED"
cat train.py >> "$CALLED"
[ "$A" != 2 ] || exit 2
[ "$A" != 0 ] || exit 0
for _ in $(seq 600); do sleep 0.1; done
"""


class Host:
    """A host: its folder, and host.sh in it."""

    def __init__(self, folder: Path, request, bundle: Bundle):
        self.called, self.deleted, self.lockfile = folder / "called", folder / "deleted", folder / "lockfile"
        python = folder / "python"
        python.write_text(PYTHON)
        python.chmod(0o755)
        self.request, self.bundle = request._replace(python=str(python)), bundle
        self.folder = folder / "lib" / request.name
        self._script = folder / "host.sh"
        self._script.write_text(host_script(request).replace("UPLOAD_SECONDS=60", "UPLOAD_SECONDS=0"))
        self._environment = {
            "MIXER_JAX_FOLDER": str(folder / "lib"), "CALLED": str(self.called), "MIXER_JAX_PAUSE_SECONDS": "0.1",
            "TPU_LOCKFILE": str(self.lockfile), "GCE_METADATA_HOST": "127.0.0.1:9",
        }  # fmt: skip

    def send_job(self, time_: int = MOMENT.time, hours: float = 1.0, **env: str) -> None:
        request = self.request._replace(env=env)
        job = job_text(request, self.bundle, MOMENT._replace(time=time_, hours=hours))
        open_storage(request.folder).write("job.env", job.encode())
        open_storage(f"{request.root}/bundles").write(self.bundle.file_name, self.bundle.content)

    def start(self, *arguments: str) -> subprocess.Popen:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(["bash", str(self._script), *arguments], env=os.environ | self._environment, **output)

    def run(self, *arguments: str) -> tuple[int, str]:
        with self.start(*arguments) as process:
            output, _ = process.communicate(timeout=30)
        return process.returncode, output

    def codes(self, time_: int = MOMENT.time) -> list[int]:
        return list(read_ended(self.request, f"LAUNCHED={time_}").values())


@pytest.fixture
def host(tmp_path: Path, cloud) -> Host:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "train.py").write_text("the code\n")
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "train.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    return Host(tmp_path, REQUESTS["v4-64"], make_bundle(repository))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_host_fetches_the_code_and_supervises_the_run_in_it_until_it_is_done(host: Host):
    host.send_job(A="0")
    code, output = host.run()
    assert code == 0 and "ended with 0" in output
    assert host.called.read_text().splitlines() == [
        str(host.folder / "source"), "0", "-m", "mixer_jax", "supervise", "--", *host.request.command, "the code",
    ]  # fmt: skip
    assert host.codes() == [0]


def test_a_code_that_only_a_person_can_mend_is_told(host: Host):
    host.send_job(A="2")
    host.run()
    assert host.codes() == [2]


def test_stop_waits_until_all_is_saved_and_the_same_job_is_not_started_again(host: Host):
    host.send_job(A="x")
    running = host.start()
    wait_for(host.called.exists)
    assert host.run("stop")[0] == 75
    assert running.wait(10) == 0 and host.called.read_text().endswith("saved\n") and host.codes() == [75]
    host.called.unlink()
    assert "was stopped" in host.run()[1] and not host.called.exists()
    host.send_job(MOMENT.time + 1, A="0")
    assert host.run()[0] == 0 and host.codes(MOMENT.time + 1) == [0]


def test_a_launch_after_a_stop_starts_the_run_again_on_the_machine_that_was_kept(host: Host):
    host.send_job(A="x")
    running = host.start()
    wait_for(host.called.exists)
    assert host.run("stop")[0] == 75 and running.wait(10) == 0
    host.called.unlink()
    host.send_job(MOMENT.time + 1, A="x")
    assert host.run("start")[0] == 0
    wait_for(host.called.exists)
    # It can be stopped again, as its own job.
    assert host.run("stop")[0] == 75 and host.codes(MOMENT.time + 1) == [75]
    assert "was stopped" in host.run()[1]


def test_a_machine_that_goes_saves_first_and_one_that_comes_back_goes_on(host: Host):
    host.send_job(A="x")
    running = host.start()
    wait_for(host.called.exists)
    host.run("terminate")
    running.wait(10)
    assert host.called.read_text().endswith("saved\n")
    host.called.unlink()
    running = host.start()
    wait_for(host.called.exists)
    running.send_signal(signal.SIGTERM)  # The system may send one itself.
    assert running.wait(10) == 0 and host.called.read_text().endswith("saved\n")


def test_another_job_takes_the_place_of_one_that_runs(host: Host):
    host.send_job(A="x")
    running = host.start()
    wait_for(host.called.exists)
    host.send_job(MOMENT.time + 1, A="0")
    assert host.run("start")[0] == 0
    wait_for(lambda: host.codes(MOMENT.time + 1))
    assert running.wait(10) == 0 and host.codes() == [75] and host.codes(MOMENT.time + 1) == [0]


def test_a_second_start_of_the_script_leaves_the_first_alone(host: Host):
    host.send_job(A="x")
    running = host.start()
    wait_for(host.called.exists)
    assert "is running" in host.run()[1]
    host.run("stop")
    running.wait(10)


def test_the_run_is_stopped_and_saved_when_its_hours_are_used_up(host: Host):
    host.send_job(hours=3 / 3600, A="x")
    host.run()
    assert host.called.read_text().endswith("saved\n") and host.codes() == [124]


def test_a_clock_that_ticks_between_two_readings_takes_no_hours_away(host: Host, ticking_clock):
    host.send_job(hours=2 / 3600, A="0")
    host.run()
    assert host.called.exists() and host.codes() == [0]


def test_the_hours_go_on_while_a_machine_is_away(host: Host):
    host.send_job(hours=1 / 3600, A="x")
    (host.folder).mkdir(parents=True)
    (host.folder / f"deadline-{MOMENT.time}").write_text(f"{int(time.time()) - 5}\n")
    host.run()
    assert host.codes() == [124] and not host.called.exists()


def test_code_that_was_changed_on_its_way_is_not_run_and_the_log_says_so(host: Host):
    host.send_job(A="0")
    open_storage(f"{host.request.root}/bundles").write(host.bundle.file_name, b"something else")
    host.run()
    assert not host.called.exists() and host.codes() == [1]
    logs = open_storage(f"{host.request.workdir}/logs")
    assert "FAILED" in b"".join(logs.read_whole(name, 2**20) for name in logs.names()).decode()


def test_a_lockfile_goes_if_nobody_holds_it_and_stays_if_somebody_does(host: Host):
    host.send_job(A="0")
    host.lockfile.touch()
    assert "which nobody held" in host.run()[1] and not host.lockfile.exists()
    host.lockfile.touch()
    holding = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", holding, str(host.lockfile)], **pipes)
    holder.stdout.readline()
    host.run()
    assert host.lockfile.exists()
    holder.communicate(b"\n")
