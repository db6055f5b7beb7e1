"""Runs under `supervise`, of one host or two, whose processes are killed: they start again, and end as if nothing had been."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from programs import finish, start, start_two, wait_for

from mixer_jax.checkpoints.committed_steps import committed_steps
from mixer_jax.records import read_metrics

SUPERVISED = """import sys; sys.path[:0] = [""]
sys.argv[1:1] = ["supervise", "--max-pause=1", "--", "train.py"]
from mixer_jax.__main__ import main
sys.exit(main())
"""
TWO = (SUPERVISED, SUPERVISED)
# train.py, whose lease of a bucket expires soon after a kill.
IN_BUCKET = """import sys; sys.path[:0] = [""]
from mixer_jax import app, lease
lease.EXPIRY_SECONDS, lease.RENEWAL_SECONDS, lease.POLL_SECONDS = 6, 0.5, 0.2
import train
app.run(train.main, train.join, workdir="")
"""


def program_of(supervisor) -> int:
    """Return the number of the process that a supervisor runs."""
    (child,) = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
    return int(child)


def results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


def assert_near(workdir: Path, reference: Path) -> None:
    """Check that a run has the figures of another one, which had another number of devices."""
    assert results(workdir)["step"] == results(reference)["step"]
    for name in ("loss", "grad_norm", "test/top1"):
        ours, theirs = ([row[name] for row in read_metrics(folder) if name in row] for folder in (workdir, reference))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """Return the folder of a run that was never interrupted."""
    workdir = tmp_path_factory.mktemp("reference")
    finish(start(f"--workdir={workdir}"))
    return workdir


def test_a_run_that_is_killed_goes_on_by_itself_to_the_same_bits(reference: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    supervisor = start(f"--workdir={workdir}", program=SUPERVISED)
    for step in (5, 15):
        wait_for(lambda step=step: committed_steps(str(workdir))[-1:] >= [step], supervisor)
        os.kill(program_of(supervisor), signal.SIGKILL)
    said = finish(supervisor)
    assert said.count("train.py was ended by SIGKILL at step ") == 2 and said.count("again in 1 s") == 2
    assert results(workdir)["params_sha256"] == results(reference)["params_sha256"]
    assert results(workdir)["evals"] == results(reference)["evals"]
    logs = sorted((workdir / "logs").iterdir())
    assert len(logs) == 3 and "train.py is done" in logs[-1].read_text()


def test_a_run_in_a_bucket_goes_on_by_itself_and_leaves_its_logs_there(reference: Path, tmp_path: Path, cloud):
    pytest.importorskip("gcsfs", reason="checkpoints in a bucket need gcsfs, the extra gcs")
    (tmp_path / "train.py").write_text(IN_BUCKET)
    supervisor = start("--workdir=gs://bucket/run", program=SUPERVISED.replace("train.py", f"{tmp_path}/train.py"))
    wait_for(lambda: bool(committed_steps("gs://bucket/run")), supervisor)
    os.kill(program_of(supervisor), signal.SIGKILL)
    said = finish(supervisor)
    assert "train.py was ended by SIGKILL at step " in said and "Waiting up to 6 s for a sign of life" in said
    objects = {name: data for (_, name), data in cloud.objects.items()}
    assert json.loads(objects["run/results.json"])["params_sha256"] == results(reference)["params_sha256"]
    first, second = (data.decode() for name, data in sorted(objects.items()) if name.startswith("run/logs/"))
    assert "step 2 of 30" in first and "ended by SIGKILL" in first and second.endswith("train.py is done\n")


@pytest.mark.parametrize("host", [0, 1])
def test_when_one_of_two_hosts_is_killed_both_go_on_to_the_end(reference: Path, tmp_path: Path, host: int):
    supervisors = start_two(f"--workdir={tmp_path}", programs=TWO)
    wait_for(lambda: bool(committed_steps(str(tmp_path))), supervisors[0])
    os.kill(program_of(supervisors[host]), signal.SIGKILL)
    said = [finish(supervisor) for supervisor in supervisors]
    assert "train.py was ended by SIGKILL" in said[host] and "train.py is done" in said[1 - host]
    assert all("start 2 of train.py, from step" in text for text in said)
    assert_near(tmp_path, reference)
    assert len(list((tmp_path / "logs").iterdir())) == sum(text.count(" of train.py, from ") for text in said)


def test_a_run_of_two_hosts_that_are_lost_goes_on_with_one(reference: Path, tmp_path: Path):
    supervisors = start_two(f"--workdir={tmp_path}", programs=TWO)
    wait_for(lambda: bool(committed_steps(str(tmp_path))), supervisors[0])
    for supervisor in supervisors:
        supervisor.kill()
        supervisor.communicate()
    finish(start(f"--workdir={tmp_path}", program=SUPERVISED))
    assert_near(tmp_path, reference)


def test_a_mistake_ends_every_supervisor_without_another_start(tmp_path: Path):
    supervisors = start_two(f"--workdir={tmp_path}", second=("--config.seed=1",), programs=TWO)
    for supervisor in supervisors:
        said = finish(supervisor, 2)
        assert "config.seed: 0 on host 0, 1 on host 1" in said and "start 2" not in said
