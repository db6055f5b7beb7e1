"""The files of a launch on GKE: an image of the container, and a JobSet that is restarted after a preemption."""

from typing import Any

from mixer_jax.endings import STOPPED
from mixer_jax.launch.bundle import Bundle
from mixer_jax.launch.commands import Moment, Run, Step, Write, code_variables, delete_command, record_steps
from mixer_jax.launch.request import Request, hosts_of_slice
from mixer_jax.storage import json_text

GRACE_SECONDS = 60  # From SIGTERM to SIGKILL of a pod.
SUPERVISOR_GRACE_SECONDS = 45
MAX_RESTARTS = 100
# The hours count from the launch, also while pods wait. The exit code 2 ends the JobSet.
BOUNDED = (
    'left=$((DEADLINE - $(date +%s))); [ "$left" -gt 0 ] || exit 2; '
    'exec timeout --foreground --preserve-status --signal=TERM $((left + 1)) "$@"'
)
PORTS = (8471, 8080)  # Between the chips' hosts, and between slices.


def gke_steps(request: Request, bundle: Bundle, moment: Moment, folder: str) -> list[Step]:
    """Return the steps that write the files, build the image and create the JobSet, or that only write them to a `folder`."""
    target = folder or moment.state_folder
    steps: list[Step] = [
        *record_steps(request, bundle, moment, is_local=bool(folder)),
        Write(f"{target}/bundle.tar", bundle.content),
        Write(f"{target}/Dockerfile", dockerfile(request, bundle).encode()),
        Write(f"{target}/jobset.json", json_text(jobset(request, moment), indent=2).encode() + b"\n"),
    ]
    return steps if folder else [*steps, *(Run(command) for command in gke_commands(request, target))]


def gke_commands(request: Request, folder: str) -> list[list[str]]:
    """Return the commands that build the image from the files in a folder, and create the JobSet.

    A JobSet cannot be changed, and one that was stopped stays suspended. So one that is there is deleted first, with its pods,
    which are stopped and saved.
    """
    return [
        ["docker", "build", f"--tag={request.image}", folder],
        ["docker", "push", request.image],
        [*delete_command(request), "--cascade=foreground"],
        ["kubectl", "apply", "--server-side", f"--filename={folder}/jobset.json"],
    ]


def dockerfile(request: Request, bundle: Bundle) -> str:
    """Return the recipe of an image with the code and the packages of its lock files."""
    variables = " ".join(f"{name}={value}" for name, value in code_variables(bundle).items())
    locks = " ".join(f"-r requirements{extra}.txt" for extra in ("", "-tpu", "-gcs"))
    return (
        f"FROM python:{request.python}-slim\n"
        "ADD bundle.tar /mixer_jax\n"
        "WORKDIR /mixer_jax\n"
        f"RUN pip install --no-cache-dir --require-hashes {locks}\n"
        f"ENV {variables}\n"
    )


def jobset(request: Request, moment: Moment) -> dict[str, Any]:
    """Return the JobSet. Each slice is a job, and each host of it a pod."""
    hosts = hosts_of_slice(request)
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": request.accelerator,
            "cloud.google.com/gke-tpu-topology": request.topology,
        },
        "containers": [_container(request, moment)],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],  # Decoded images go through it; it has 64 MB otherwise.
    }
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",  # A person must look: the supervisor has given up. After STOPPED all pods start again.
                    "onExitCodes": {"containerName": "train", "operator": "NotIn", "values": [STOPPED]},
                },
            ]
        },
        "template": {"spec": pod},
    }
    # A pod failure policy that ends a job ends the JobSet. Any other failure of a job restarts all.
    policy = {"name": "end", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": request.name,
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": MAX_RESTARTS, "rules": [policy]},
            "replicatedJobs": [{"name": "slice", "replicas": request.slices, "template": {"spec": job}}],
        },
    }


def _container(request: Request, moment: Moment) -> dict[str, Any]:
    supervise = ["python", "-m", "mixer_jax", "supervise", f"--grace={SUPERVISOR_GRACE_SECONDS}", "--"]
    env = {"DEADLINE": str(moment.time + round(moment.hours * 3600))} | dict(request.env)
    chips = {"google.com/tpu": request.chips_per_host}
    return {
        "name": "train",
        "image": request.image,
        "command": ["bash", "-c", BOUNDED, "bash", *supervise, *request.command],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "ports": [{"containerPort": port} for port in PORTS],
        "resources": {"limits": chips, "requests": chips},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        "securityContext": {"privileged": True},  # libtpu locks the memory that it shares with the chips.
    }
