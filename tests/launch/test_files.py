"""The files for GKE and SLURM."""

import functools
import json
import operator
import os
import re
import signal
import subprocess
from pathlib import Path

import jsonschema
import pytest
from launch.requests import BUNDLE, MOMENT, REQUESTS

from mixer_jax.launch.commands import Write, format_steps
from mixer_jax.launch.gke import BOUNDED, dockerfile, gke_commands, gke_steps, jobset
from mixer_jax.launch.request import check
from mixer_jax.launch.slurm import script_text, slurm_steps

RECORDED = Path(__file__).parent / "recorded"
MAKERS = {"gke": gke_steps, "slurm": slurm_steps}
OFF_TPU = {name: request for name, request in REQUESTS.items() if request.backend in MAKERS}


@pytest.mark.parametrize("name", OFF_TPU)
def test_the_steps_of_a_launch_are_the_recorded_ones(name: str):
    request = check(REQUESTS[name])
    steps = MAKERS[request.backend](request, BUNDLE, MOMENT, "")
    assert format_steps(steps) + "\n" == (RECORDED / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", OFF_TPU)
def test_with_a_folder_all_files_go_there_but_the_record_and_nothing_is_run(name: str):
    request = REQUESTS[name]
    steps = MAKERS[request.backend](request, BUNDLE, MOMENT, "out")
    assert all(isinstance(step, Write) and step.path.startswith(("out/", MOMENT.state_folder)) for step in steps)


def jobset_faults(content: dict) -> list[str]:
    """Return where a JobSet is not one that Kubernetes takes."""
    schema = json.loads((Path(__file__).parent / "jobset_schema.json").read_text())
    return [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


@pytest.mark.parametrize(
    "change",
    [
        {}, {"slices": 1}, {"env": {}}, {"name": "a" * 39}, {"chips_per_host": 1}, {"topology": "4x4x4"}, {"max_hours": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_a_jobset_is_one_that_kubernetes_takes(change):
    content = jobset(check(REQUESTS["gke"]._replace(**change)), MOMENT)
    assert jobset_faults(content) == []
    pod = content["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    assert container["resources"]["limits"] == container["resources"]["requests"]  # Chips cannot be shared.
    # The longest name of a pod, JOBSET-JOB-NUMBER-INDEX-xxxxx, is that of a host, which has at most 63 characters.
    assert len(f"{content['metadata']['name']}-slice-{2**12}-{2**12}-xxxxx") <= 63


JOB = "$.spec.replicatedJobs[0].template.spec"
POD = f"{JOB}.template.spec"


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("$.apiVersion", "batch/v1"),
        ("$.metadata.name", "L16"),
        ("$.spec", {"maxRestarts": 3}),
        ("$.spec.failurePolicy.rules[0].action", "Fail"),
        ("$.spec.failurePolicy.rules[0].onJobFailureReasons[0]", "podFailurePolicy"),
        (f"{JOB}.parallelism", "16"),
        (f"{JOB}.completionMode", "indexed"),
        (f"{JOB}.podFailurePolicy.rules[1].onExitCodes.values", []),
        (f"{JOB}.podFailurePolicy.rules[1].onExitCodes", {"operator": "In", "values": [0]}),
        (f"{POD}.restartPolicy", "OnFailure"),
        (f"{POD}.containers[0].env[0].value", 1764589000),
        (f"{POD}.containers[0].ports[0].containerPort", 0),
        (f"{POD}.containers[0]", {"volumesMounts": []}),
        (f"{POD}.containers[0].securityContext.privileged", "true"),
    ],
)
def test_a_jobset_with_a_mistake_is_not_one_that_kubernetes_takes(where: str, change):
    content = jobset(REQUESTS["gke"], MOMENT)
    *path, last = [int(name) if name.isdecimal() else name for name in re.findall(r"\w+", where)]
    parent = functools.reduce(operator.getitem, path, content)
    parent[last] = parent[last] | change if isinstance(change, dict) else change
    assert [fault for fault in jobset_faults(content) if fault.startswith(where)]


def test_a_jobset_starts_all_hosts_of_all_slices_again_after_75_alone():
    content = jobset(REQUESTS["gke"], MOMENT)
    (replicated,) = content["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (replicated["replicas"], job["parallelism"], job["completions"], job["backoffLimit"]) == (2, 16, 16, 0)
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # A pod failure policy needs it.
    disruption, other = job["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Count" and other == {
        "action": "FailJob", "onExitCodes": {"containerName": "train", "operator": "NotIn", "values": [75]},
    }  # fmt: skip
    (rule,) = content["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_a_jobset_that_is_there_is_deleted_with_its_pods_before_another_one_is_created():
    *_, deletion, creation = gke_commands(REQUESTS["gke"], "out")
    assert deletion == ["kubectl", "delete", "jobset", "l16", "--ignore-not-found", "--cascade=foreground"]
    assert creation[:2] == ["kubectl", "apply"]


@pytest.mark.parametrize(("seconds", "code"), [(100, 7), (-1, 2)])
def test_a_container_runs_its_command_until_its_deadline(seconds: int, code: int):
    now = int(subprocess.run(["date", "+%s"], capture_output=True, text=True, check=True).stdout)
    command = ["bash", "-c", BOUNDED, "bash", "sh", "-c", 'exit "$0"', "7"]
    assert subprocess.run(command, env=os.environ | {"DEADLINE": str(now + seconds)}).returncode == code


def test_a_container_has_its_limit_also_if_the_clock_ticks_between_two_readings(ticking_clock):
    command = ["bash", "-c", BOUNDED, "bash", "sleep", "20"]
    assert subprocess.run(command, env=os.environ | {"DEADLINE": "3"}).returncode == 128 + signal.SIGTERM


def test_an_image_has_the_code_and_the_locks():
    text = dockerfile(REQUESTS["gke"], BUNDLE)
    assert "--require-hashes -r requirements.txt -r requirements-tpu.txt -r requirements-gcs.txt" in text
    assert "ADD bundle.tar" in text and BUNDLE.digest in text


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
shift 4 # timeout with its options
shift
printf '%s\\n' "$@" > "$CALLED"
exit "$CODE"
"""


class Job:
    """A job of the request slurm-array, whose script runs with stand-ins for srun and scontrol."""

    def __init__(self, folder: Path, max_hours: float = 48):
        self.request = REQUESTS["slurm-array"]._replace(root=str(folder / "shared"), python="python", max_hours=max_hours)
        self.script, self.called, self._bin = script_text(self.request, BUNDLE), folder / "called", folder / "bin"
        self._bin.mkdir()
        for name, text in {"srun": SRUN, "scontrol": '#!/bin/bash\necho "$@" > "$CALLED.scontrol"\n'}.items():
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)
        Path(self.request.folder).mkdir(parents=True)
        (folder / "train.py").touch()
        bundle = f"{self.request.folder}/bundle.tar"
        subprocess.run(["tar", "-cf", bundle, "-C", str(folder), "train.py"], check=True)

    def run(self, code: int) -> subprocess.CompletedProcess:
        """Run the script. The program of the job ends with `code`."""
        environment = {"PATH": f"{self._bin}:{os.environ['PATH']}", "CALLED": str(self.called), "CODE": str(code)}
        environment |= {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}
        return subprocess.run(["bash", "-c", self.script], env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.parametrize(("code", "is_requeued"), [(0, False), (1, False), (2, False), (75, True)])
def test_a_job_is_requeued_after_75_alone(code: int, is_requeued: bool, tmp_path: Path):
    job = Job(tmp_path)
    for _ in range(2):  # The second time, the code is there already.
        ended = job.run(code)
        assert ended.returncode == code, ended.stderr
    words = job.called.read_text().splitlines()
    assert words[:4] == ["python", "-m", "mixer_jax", "supervise"]
    assert words[-2:] == ["--config.seed=3", f"--workdir={job.request.root}/runs/seeds-3"]
    requeued = Path(f"{job.called}.scontrol")
    assert requeued.exists() == is_requeued and (not is_requeued or requeued.read_text() == "requeue 9_3\n")
    assert [file.name for file in Path(job.request.root, "code").iterdir()] == [BUNDLE.digest[:16]]
    Path(job.request.folder, "deadline-9").write_text("1\n")
    assert job.run(code).returncode == 2


def test_a_job_has_its_hours_also_if_the_clock_ticks_between_two_readings(tmp_path: Path, ticking_clock):
    job = Job(tmp_path, max_hours=2 / 3600)
    assert job.run(0).returncode == 0 and job.called.exists()


def test_code_that_cannot_be_unpacked_is_not_run_and_leaves_no_part_that_another_job_would_run(tmp_path: Path):
    request = REQUESTS["slurm-array"]._replace(root=str(tmp_path))
    Path(request.folder).mkdir(parents=True)
    Path(request.folder, "bundle.tar").write_bytes(b"damaged")
    assert subprocess.run(["bash", "-c", script_text(request, BUNDLE)], capture_output=True).returncode == 1
    assert not Path(request.root, "code", BUNDLE.digest[:16]).exists()


def test_a_jobset_is_json_that_names_its_command():
    written = {
        step.path.rpartition("/")[2]: step.content
        for step in gke_steps(REQUESTS["gke"], BUNDLE, MOMENT, "out")
        if isinstance(step, Write)
    }
    job = json.loads(written["jobset.json"])["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["template"]["spec"]["containers"][0]["command"][-len(REQUESTS["gke"].command) :] == REQUESTS["gke"].command
