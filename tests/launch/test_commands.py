"""The steps that a launch takes: pure functions of a request and of what was observed."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from launch.requests import BUNDLE, MOMENT, REQUESTS
from stand_ins.tpu_api import PARENT, TpuApi

from mixer_jax.launch import tpu
from mixer_jax.launch.commands import (
    GONE,
    LOST,
    READY,
    WAITING,
    Observed,
    Run,
    Write,
    delete_command,
    delete_steps,
    format_steps,
    host_script,
    job_text,
    launch_steps,
    observe_commands,
    situation,
    stop_command,
)
from mixer_jax.launch.request import check

RECORDED = Path(__file__).parent / "recorded"
ON_TPU = {name: request for name, request in REQUESTS.items() if request.backend == "tpu"}
needs_gcloud = pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed here")


@pytest.mark.parametrize("name", ON_TPU)
def test_the_steps_of_a_launch_are_the_recorded_ones(name: str):
    assert (
        format_steps(launch_steps(check(REQUESTS[name]), BUNDLE, Observed(), MOMENT)) + "\n"
        == (RECORDED / f"{name}.txt").read_text()
    )


def test_a_launch_on_machines_that_were_kept_after_a_stop_has_the_recorded_steps():
    request = REQUESTS["v4-64"]
    earlier = job_text(request, BUNDLE, MOMENT._replace(time=MOMENT.time - 3600))
    kept = Observed(
        "ACTIVE", {"l16": "READY"}, num_hosts=8, has_bundle=True, job=earlier, ended={f"w-{host}": 75 for host in range(8)}
    )
    assert format_steps(launch_steps(request, BUNDLE, kept, MOMENT)) + "\n" == (RECORDED / "v4-64-kept.txt").read_text()


QUEUED, ALONE = REQUESTS["v4-64"], REQUESTS["v3-512"]


@pytest.mark.parametrize(
    ("request_", "state", "nodes", "expected"),
    [
        (QUEUED, "", {}, GONE),
        (QUEUED, "ACCEPTED", {}, WAITING),
        (QUEUED, "WAITING_FOR_RESOURCES", {}, WAITING),
        (QUEUED, "PROVISIONING", {"l16": "CREATING"}, WAITING),
        (QUEUED, "ACTIVE", {"l16": "READY"}, READY),
        (QUEUED, "ACTIVE", {"l16": "REPAIRING"}, WAITING),
        (QUEUED, "ACTIVE", {"l16": "PREEMPTED"}, LOST),
        (QUEUED, "ACTIVE", {}, LOST),
        (QUEUED, "FAILED", {}, LOST),
        (QUEUED, "SUSPENDING", {"l16": "READY"}, LOST),
        (QUEUED, "SUSPENDED", {}, LOST),
        (QUEUED, "A_STATE_THAT_COMES_LATER", {}, LOST),
        (REQUESTS["v6e-64x2"], "ACTIVE", {"l16-0": "READY", "l16-1": "READY"}, READY),
        (REQUESTS["v6e-64x2"], "ACTIVE", {"l16-0": "READY", "l16-1": "TERMINATED"}, LOST),
        (REQUESTS["v6e-64x2"], "ACTIVE", {"l16-0": "READY"}, WAITING),
        (ALONE, "", {}, GONE),
        (ALONE, "", {"l16": "CREATING"}, WAITING),
        (ALONE, "", {"l16": "READY"}, READY),
        (ALONE, "", {"l16": "PREEMPTED"}, LOST),
        (ALONE, "", {"l16": "STOPPED"}, LOST),
    ],
)
def test_only_an_active_resource_whose_nodes_are_ready_or_come_back_is_not_lost(request_, state, nodes, expected):
    assert situation(request_, Observed(state, nodes)) == expected


def commands(request_, observed: Observed) -> list[str]:
    """The verbs of the programs that a launch would run."""
    return [words[4] for (words,) in (step for step in launch_steps(request_, BUNDLE, observed, MOMENT) if isinstance(step, Run))]


@pytest.mark.parametrize("request_", [QUEUED, ALONE], ids=["queued", "alone"])
def test_what_is_gone_is_created_what_is_lost_is_deleted_first_and_what_is_ready_is_reused(request_):
    active, suspended = ("ACTIVE", "SUSPENDED") if request_.queued else ("", "")
    assert commands(request_, Observed()) == ["create"]
    assert commands(request_, Observed(suspended, {"l16": "STOPPED"})) == ["delete", "create"]
    assert commands(request_, Observed(active, {"l16": "READY"})) == ["ssh"]
    assert commands(request_, Observed("ACCEPTED" if request_.queued else "", {"l16": "CREATING"})) == []


def test_the_same_request_again_does_nothing_while_its_job_lasts_and_starts_it_when_it_has_ended():
    job = job_text(QUEUED, BUNDLE, MOMENT._replace(time=1764000000, hours=3.0))
    ready = Observed("ACTIVE", {"l16": "READY"}, has_bundle=True, job=job)
    assert launch_steps(QUEUED, BUNDLE, ready, MOMENT) == []
    assert launch_steps(QUEUED, BUNDLE, ready._replace(state="PROVISIONING", nodes={}), MOMENT) == []
    assert commands(QUEUED, ready._replace(ended={"host": 75})) == ["ssh"]
    assert commands(QUEUED._replace(env={"A": "1"}), ready) == ["ssh"]
    assert commands(QUEUED, ready._replace(state="SUSPENDED")) == ["delete", "create"]


def test_a_bundle_is_uploaded_only_if_it_is_not_there():
    def writes(has_bundle: bool) -> set[str]:
        steps = launch_steps(QUEUED, BUNDLE, Observed(has_bundle=has_bundle), MOMENT)
        return {step.path for step in steps if isinstance(step, Write)}

    assert writes(False) - writes(True) == {f"gs://bucket/mixer/bundles/{BUNDLE.digest}.tar"}


def test_nothing_is_deleted_where_nothing_is():
    assert delete_steps(QUEUED, Observed()) == []
    assert len(delete_steps(QUEUED, Observed("FAILED"))) == 1


def test_a_shell_reads_a_job_as_it_was_asked_for():
    request = REQUESTS["v5litepod-256"]._replace(env={"A": 'it\'s $HOME "x" `y` * '})
    script = job_text(request, BUNDLE, MOMENT) + 'printf "%s\\n" "$A" "$LAUNCHED" "$SECONDS_ALLOWED" "${WORDS[@]}" "${DELETE[@]}"'
    printed = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed == [request.env["A"], "1764589000", "172800", *request.command, *delete_command(request), "--async"]


@needs_gcloud
@pytest.mark.slow
@pytest.mark.parametrize("name", ON_TPU)
def test_gcloud_knows_every_flag(name: str, tmp_path: Path):
    request = ON_TPU[name]
    script = tmp_path / "host.sh"
    script.write_text(host_script(request))
    moment = MOMENT._replace(state_folder=str(tmp_path))
    active = Observed(
        "ACTIVE" if request.queued else "", {"l16": "READY"} if request.slices == 1 else {"l16-0": "READY", "l16-1": "READY"}
    )
    steps = [step for observed in (Observed(), active) for step in launch_steps(request, BUNDLE, observed, moment)]
    lists = [
        *(step.words for step in steps if isinstance(step, Run)),
        stop_command(request),
        [*delete_command(request), "--async"],
    ]
    environment = os.environ | TpuApi().environment(tmp_path) | {"CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": "http://127.0.0.1:9/"}
    for words in [*lists, *observe_commands(request)]:
        ended = subprocess.run([*words, "--flatten=x", "--unknown-flag"], env=environment, capture_output=True, text=True)
        assert ended.returncode == 2 and "unrecognized arguments: --unknown-flag" in ended.stderr.replace("\n  ", " "), (
            ended.stderr
        )


@needs_gcloud
@pytest.mark.slow
@pytest.mark.parametrize("name", ["v3-512", "v4-64", "v6e-64x2"])
def test_gcloud_creates_shows_and_deletes_what_was_asked_for(name: str, tmp_path: Path, cloud, monkeypatch):
    request = ON_TPU[name]._replace(root="gs://bucket/mixer")
    moment = MOMENT._replace(state_folder=str(tmp_path))
    (tmp_path / "host.sh").write_text(host_script(request))
    with TpuApi() as api:
        for variable, value in api.environment(tmp_path).items():
            monkeypatch.setenv(variable, value)
        assert situation(request, tpu.observe(request, BUNDLE.digest)) == GONE
        for step in launch_steps(request, BUNDLE, Observed(), moment):
            if isinstance(step, Run):
                subprocess.run(step.words, check=True, capture_output=True)
        assert situation(request, tpu.observe(request, BUNDLE.digest)) == READY
        assert tpu.observe(request, BUNDLE.digest).num_hosts == 2 * request.slices
        (node,) = {json.dumps(body["metadata"]): body for body in api.created if "metadata" in body}.values()
        assert node["acceleratorType"] == request.type and node["runtimeVersion"] == request.runtime_version
        assert node["metadata"]["startup-script"] == host_script(request)
        assert node["metadata"]["shutdown-script"] == "bash /var/lib/mixer_jax/l16/host.sh terminate"
        api.nodes["other"] = api.nodes[next(iter(api.nodes))] | {"name": f"{PARENT}/nodes/other", "state": "PREEMPTED"}
        assert situation(request, tpu.observe(request, BUNDLE.digest)) == READY
        subprocess.run(delete_command(request), check=True, capture_output=True)
        assert situation(request, tpu.observe(request, BUNDLE.digest)) == GONE


def test_the_repository_is_a_clone_with_the_files_that_hosts_need():
    script = (ROOT / "mixer_jax/launch/host.sh").read_text()
    assert all((ROOT / f"requirements{extra}.txt").is_file() for extra in ("", "-tpu", "-gcs", "-dev"))
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
