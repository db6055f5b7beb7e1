"""A pod of two hosts is launched, preempted, kept, stopped and deleted, with the real gcloud and a real sshd."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.metadata import metadata_server
from launch.pod import ADDRESSES, Pod, why_not
from programs import finish, start_two, wait_until
from stand_ins.tpu_api import TpuApi

from mixer_jax.__main__ import main
from mixer_jax.checkpoints.committed_steps import committed_steps
from mixer_jax.endings import DONE
from mixer_jax.launch import keep
from mixer_jax.storage import open_storage, parse_json

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]
OPTIONS = ("--config=tests/tiny_config.py", "--config.total.steps=60")
RUN = "gs://bucket/mixer/runs/tiny"


@pytest.fixture
def pod(tmp_path: Path, cloud, monkeypatch) -> Iterator[Pod]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    monkeypatch.setattr(keep, "POLL_SECONDS", 1.0)
    endpoints = ",".join(ADDRESSES)
    with TpuApi() as api, metadata_server(0, endpoints) as first, metadata_server(1, endpoints) as second:
        for name, value in api.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        pod = Pod(tmp_path, api, (first, second))
        yield pod
        pod.close()


def launch(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mixer_jax", "launch", *words])
    return main()


def test_a_pod_is_launched_preempted_kept_followed_and_deleted_and_its_run_has_the_bits_of_one_never_preempted(
    pod: Pod, tmp_path: Path, monkeypatch, capfd
):
    what = ("tpu", "--name=tiny", "--type=v6e-8", "--zone=europe-west4-a", "--project=p", "--bucket=gs://bucket/mixer")
    how = ("--queued", "--spot", "--max-hours=1", f"--python={sys.executable}", "--untracked")
    assert launch(monkeypatch, *what, *how, "--", *OPTIONS) == DONE, capfd.readouterr()
    pod.boot()
    wait_until(lambda: max(committed_steps(RUN), default=0) >= 10, pod.consoles)

    # The slice is lost. `keep` asks for another one, and the hosts of that one go on.
    pod.kill()
    pod.api.queued["tiny"]["state"] = {"state": "SUSPENDED"}
    codes: list[int] = []
    keeping = threading.Thread(target=lambda: codes.append(launch(monkeypatch, "keep", "tiny")))
    keeping.start()
    wait_until(
        lambda: pod.api.queued.get("tiny", {}).get("state") == {"state": "ACTIVE"} and "tiny" in pod.api.nodes, pod.consoles
    )
    pod.boot()
    wait_until(lambda: not keeping.is_alive(), pod.consoles)
    assert codes == [DONE], pod.consoles()
    assert not pod.api.queued and not pod.api.nodes

    # It can be followed after its end, and nothing is left but the run and the code.
    capfd.readouterr()
    assert launch(monkeypatch, "logs", "tiny") == DONE
    lines = capfd.readouterr().out.splitlines()
    assert {line.split(" | ")[0] for line in lines} == {f"w-{host}-boot-{boot}" for host in (0, 1) for boot in (1, 2)}
    assert launch(monkeypatch, "status", "tiny") == DONE
    status = capfd.readouterr().out
    assert "tiny is gone" in status and "w-0-boot-2 ended with 0 done" in status and "2 starts" in status
    assert launch(monkeypatch, "delete", "tiny") == DONE
    names = open_storage("gs://bucket/mixer").names()
    assert {name.partition("/")[0] for name in names} == {"bundles", "runs"}

    run = open_storage(RUN)
    starts = parse_json(run.read_whole("run.json", 2**20), "run.json")["starts"]
    assert len(starts) == 2 and f"bundles/{starts[1]['bundle_sha256']}.tar" in names
    for process in start_two(*OPTIONS[1:], f"--workdir={tmp_path}/never"):
        finish(process)
    results = [run.read_whole("results.json", 2**20), (tmp_path / "never/results.json").read_bytes()]
    assert len({parse_json(text, "results.json")["params_sha256"] for text in results}) == 1


def test_stop_reaches_the_hosts_by_ssh_and_waits_until_all_is_saved(pod: Pod, monkeypatch, capfd):
    what = ("tpu", "--name=tiny", "--type=v6e-8", "--zone=europe-west4-a", "--project=p", "--bucket=gs://bucket/mixer")
    how = ("--max-hours=1", f"--python={sys.executable}", "--untracked")
    assert launch(monkeypatch, *what, *how, "--", *OPTIONS, "--config.total.steps=100000") == DONE
    pod.boot()
    wait_until(lambda: max(committed_steps(RUN), default=0) >= 10, pod.consoles)
    assert launch(monkeypatch, "stop", "tiny") == DONE
    assert "tiny is stopped and saved." in capfd.readouterr().out
    assert launch(monkeypatch, "status", "tiny") == DONE
    status = capfd.readouterr().out
    assert all(f"w-{host}-boot-1 ended with 75" in status for host in (0, 1)) and "tiny is ready" in status
    assert launch(monkeypatch, "delete", "tiny") == DONE and not pod.api.nodes
