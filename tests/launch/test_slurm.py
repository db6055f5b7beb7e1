"""Runs are launched on a real SLURM of two nodes, requeued, followed, stopped and deleted."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch.cluster import NODES, Cluster, why_not
from programs import XLA_FLAGS, finish, start, start_two, wait_until, without_timings

from mixer_jax.__main__ import main
from mixer_jax.checkpoints.committed_steps import committed_steps
from mixer_jax.endings import DONE
from mixer_jax.records import read_metrics

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
CONFIG = "--config=tests/tiny_config.py"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch) -> Iterator[Cluster]:
    """A cluster to which this process hands jobs over. Each task has one device, as the processes of `start_two` have."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XLA_FLAGS", f"{XLA_FLAGS}1")
    (tmp_path / "slurm").mkdir()
    with Cluster(tmp_path / "slurm", tmp_path / "shared/launches/tiny") as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        yield cluster


def launch(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mixer_jax", "launch", *words])
    return main()


def hand_over(monkeypatch, root: Path, *words: str) -> None:
    """Launch a run called tiny, with these words before and after `--`."""
    how = (f"--root={root}", "--max-hours=1", f"--python={sys.executable}", "--untracked")
    assert launch(monkeypatch, "slurm", "--name=tiny", *how, *words) == DONE


def newest_step(run: Path) -> int:
    return max(committed_steps(str(run)), default=0)


def what_was_computed(run: Path) -> tuple:
    """Return what two runs of the same config have in common, whatever happened to them and wherever they ran."""
    results = json.loads((run / "results.json").read_text())
    return results["params_sha256"], results["evals"], without_timings(read_metrics(run))


def test_a_run_on_two_nodes_that_was_requeued_ends_with_the_bits_of_one_never_requeued(
    cluster: Cluster, tmp_path: Path, monkeypatch, capfd
):
    steps, run = "--config.total.steps=60", tmp_path / "shared/runs/tiny"
    hand_over(monkeypatch, tmp_path / "shared", "--nodes=2", "--", CONFIG, steps)
    wait_until(lambda: newest_step(run) >= 10, cluster.logs)
    (job,) = cluster.jobs()
    cluster.run("scontrol", "requeue", job)
    wait_until(lambda: not cluster.jobs(), cluster.logs)
    assert (run / "results.json").exists(), cluster.logs()

    # It can be followed after its end. Each node has a log for each of the two times that the job ran.
    capfd.readouterr()
    assert launch(monkeypatch, "status", "tiny") == DONE
    status = capfd.readouterr().out
    assert "2 starts" in status and all(re.search(rf"^ +\d  {name} ", status, re.MULTILINE) for name in NODES), status
    assert launch(monkeypatch, "logs", "tiny") == DONE
    logs = capfd.readouterr().out
    for number, name in enumerate(NODES):
        lines = [line.partition(" | ")[2] for line in logs.splitlines() if line.startswith(f"{name}-{number} | ")]
        ends = [line.partition(" train.py ")[2] for line in lines if line.startswith("supervise: ") and " train.py " in line]
        assert ends == ["ended with 75 (stopped and saved)", "is done"], logs

    for process in start_two(steps, f"--workdir={tmp_path}/never"):
        finish(process)
    assert what_was_computed(run) == what_was_computed(tmp_path / "never")


def test_a_run_that_was_stopped_is_saved_goes_on_when_launched_again_and_can_be_deleted_with_its_job(
    cluster: Cluster, tmp_path: Path, monkeypatch, capfd
):
    run, words = tmp_path / "shared/runs/tiny", ("--nodes=2", "--", CONFIG, "--config.total.steps=100000")
    hand_over(monkeypatch, tmp_path / "shared", *words)
    wait_until(lambda: newest_step(run) >= 10, cluster.logs)
    assert launch(monkeypatch, "stop", "tiny") == DONE
    wait_until(lambda: not cluster.jobs(), cluster.logs)
    saved = newest_step(run)
    capfd.readouterr()
    assert launch(monkeypatch, "logs", "tiny") == DONE
    logs = capfd.readouterr().out
    assert logs.count("train.py ended with 75 (stopped and saved)") == len(NODES), logs

    hand_over(monkeypatch, tmp_path / "shared", *words)
    wait_until(lambda: newest_step(run) > saved, cluster.logs)
    capfd.readouterr()
    assert launch(monkeypatch, "logs", "tiny") == DONE
    assert f"start 1 of train.py, from step {saved}" in capfd.readouterr().out
    assert launch(monkeypatch, "delete", "tiny") == DONE
    wait_until(lambda: not cluster.jobs(), cluster.logs)
    assert not (tmp_path / "shared/launches/tiny/launch.json").exists() and newest_step(run) > saved


def test_a_run_of_an_array_that_is_told_to_end_goes_back_into_the_queue_alone_and_each_has_the_bits_of_its_own(
    cluster: Cluster, tmp_path: Path, monkeypatch
):
    words, runs = (CONFIG, "--config.total.steps=150"), [tmp_path / f"shared/runs/tiny-{number}" for number in range(2)]
    hand_over(monkeypatch, tmp_path / "shared", "--runs=2", "--", *words, "--config.seed=%a")
    wait_until(lambda: newest_step(runs[1]) >= 10, cluster.logs)
    # As the scheduler does when the time of a job is almost over: the steps of a job get the signal, its script does not.
    cluster.run("scancel", "--signal=TERM", next(job for job in cluster.jobs() if job.endswith("_1")))
    wait_until(lambda: not cluster.jobs(), cluster.logs)
    starts = [json.loads((run / "run.json").read_text())["starts"] for run in runs]
    assert [len(each) for each in starts] == [1, 2], cluster.logs()
    for number, run in enumerate(runs):
        finish(start(*words[1:], f"--config.seed={number}", f"--workdir={tmp_path}/alone-{number}", devices=1))
        assert what_was_computed(run) == what_was_computed(tmp_path / f"alone-{number}")
    assert what_was_computed(runs[0])[0] != what_was_computed(runs[1])[0]
