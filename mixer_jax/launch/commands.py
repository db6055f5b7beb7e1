"""Decides what a launch does: from a request and what was observed, the list of steps that is printed or carried out.

Everything here is a pure function. A dry run prints the very list that would be carried out.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.hosts.software import BUNDLE_VARIABLE, COMMIT_VARIABLE
from mixer_jax.launch.bundle import Bundle
from mixer_jax.launch.request import FLEX_START, MARGIN_HOURS, Request
from mixer_jax.storage import json_text

GONE, WAITING, READY, LOST = "gone", "waiting", "ready", "lost"
# States of a queued resource and of a node in which the resource will become ready without us. In all others that are not ACTIVE
# and READY it is lost: a suspended one never comes back, still counts against the quota, and must be deleted.
WAITING_STATES = ("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING")
COMING_STATES = ("CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING")
FINAL_CODES = {DONE: "done", TO_MEND: "a person must change something", 124: "the hours are used up"}  # Of host.sh; others go on.
RECORD, JOB = "launch.json", "job.env"
SHOWN = (JOB, ".sbatch", "jobset.json", "Dockerfile")  # Files whose text a dry run shows.
HOST_SCRIPT = Path(__file__).with_name("host.sh")
HOST_FOLDER = "/var/lib/mixer_jax"


class Write(NamedTuple):
    """A step that writes a file, on this machine or in a bucket."""

    path: str
    content: bytes


class Run(NamedTuple):
    """A step that runs a program on this machine."""

    words: Sequence[str]


Step = Write | Run


class Observed(NamedTuple):
    """What was found out before anything is changed.

    Attributes:
      state: the state of the queued resource, or "" if there is none, or none was asked for.
      nodes: {name of a node: its state}.
      created: {name of a node: the time of its creation in seconds since 1970}, as far as gcloud tells it.
      num_hosts: the number of hosts of all nodes. It is read from the network endpoints of the nodes, never computed.
      has_bundle: whether the bundle is in the bucket.
      job: the job that is in the bucket for this name, or "".
      ended: {host: the code with which this job has ended there}.
    """

    state: str = ""
    nodes: Mapping[str, str] = MappingProxyType({})
    created: Mapping[str, float] = MappingProxyType({})
    num_hosts: int = 0
    has_bundle: bool = False
    job: str = ""
    ended: Mapping[str, int] = MappingProxyType({})


class Moment(NamedTuple):
    """What a launch has beside its request.

    Attributes:
      time: the time in seconds since 1970.
      hours: the hours that are left.
      state_folder: a folder for files on this machine.
      counted_from: the time from which the hours count, or 0 for `time`. `keep` launches again within the hours of a launch.
    """

    time: int
    hours: float
    state_folder: str
    counted_from: float = 0


def situation(request: Request, observed: Observed) -> str:
    """Return GONE, WAITING, READY or LOST."""
    states = list(observed.nodes.values())
    if not observed.state and not states:
        return GONE
    if observed.state in WAITING_STATES:
        return WAITING
    if observed.state == ("ACTIVE" if request.queued else "") and states:
        if len(states) == request.slices and set(states) == {"READY"}:
            return READY
        if set(states) <= {"READY", *COMING_STATES}:
            return WAITING
    return LOST


def launch_steps(request: Request, bundle: Bundle, observed: Observed, moment: Moment) -> list[Step]:
    """Return the steps that create the resource or reuse it, and none if it has this very job and has not ended it."""
    now, job = situation(request, observed), job_text(request, bundle, moment)
    if now in (WAITING, READY) and _lasting(job) == _lasting(observed.job) and not observed.ended:
        return []
    script = f"{moment.state_folder}/host.sh"
    steps: list[Step] = []
    if not observed.has_bundle:
        steps.append(Write(f"{request.root}/bundles/{bundle.file_name}", bundle.content))
    steps.append(Write(f"{request.folder}/{JOB}", job.encode()))
    steps += record_steps(request, bundle, moment)
    if now == LOST:
        steps += delete_steps(request, observed)
    if now in (GONE, LOST):
        steps += [Write(script, host_script(request).encode()), Run(_create(request, moment.hours, script))]
    elif now == READY:
        steps.append(Run(ssh(request, f"sudo bash {HOST_FOLDER}/{request.name}/host.sh start")))
    return steps


def record_steps(request: Request, bundle: Bundle, moment: Moment, is_local: bool = False) -> list[Step]:
    """Return the steps that write the record of a launch on this machine and, unless `is_local`, beside its runs."""
    record = {
        "launched": moment.time,
        "counted_from": moment.counted_from or moment.time,
        "bundle": bundle.digest,
        "commit": bundle.commit,
        "request": request._asdict() | {"env": dict(request.env)},
    }
    text = json_text(record, indent=2).encode() + b"\n"
    folders = [moment.state_folder] if is_local else [request.folder, moment.state_folder]
    return [Write(f"{folder}/{RECORD}", text) for folder in folders]


def delete_steps(request: Request, observed: Observed) -> list[Step]:
    """Return the steps that delete the resource with all its nodes, and none if there is none."""
    return [] if situation(request, observed) == GONE else [Run(delete_command(request))]


def stop_command(request: Request) -> list[str]:
    """Return the command that stops the run. On TPU VMs it waits until all is saved, and the machines stay."""
    if request.backend == "gke":
        return ["kubectl", "patch", "jobset", request.name, "--type=merge", '--patch={"spec": {"suspend": true}}']
    return (
        delete_command(request)
        if request.backend == "slurm"
        else ssh(request, f"sudo bash {HOST_FOLDER}/{request.name}/host.sh stop")
    )


def host_script(request: Request) -> str:
    """Return the startup script of a host."""
    return HOST_SCRIPT.read_text().replace("@LAUNCH@", request.folder)


def job_text(request: Request, bundle: Bundle, moment: Moment) -> str:
    """Return the file that host.sh fetches at each start: what to run, with which code, for how long."""
    env = code_variables(bundle) | dict(request.env)
    return "\n".join([
        f"LAUNCHED={moment.time}",
        f"SECONDS_ALLOWED={round(moment.hours * 3600)}",
        f"BUNDLE={bundle.digest}",
        f"PYTHON={request.python}",
        *(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        f"WORDS=({shlex.join(request.command)})",
        f"DELETE=({shlex.join([*delete_command(request), '--async'])})",
    ]) + "\n"  # fmt: skip


def code_variables(bundle: Bundle) -> dict[str, str]:
    """Return the variables from which run.json gets the commit and the digest of the code."""
    return {BUNDLE_VARIABLE: bundle.digest, COMMIT_VARIABLE: bundle.commit}


def _lasting(job: str) -> str:
    """Return a job without the lines that differ between two launches of the same request."""
    return "\n".join(line for line in job.splitlines() if not line.startswith(("LAUNCHED=", "SECONDS_ALLOWED=")))


def _create(request: Request, hours: float, script: str) -> list[str]:
    size = [f"--accelerator-type={request.type}"]
    shared = [
        f"--metadata-from-file=startup-script={script}",
        f"--metadata=shutdown-script=bash {HOST_FOLDER}/{request.name}/host.sh terminate",
        f"--labels=mixer_jax={request.name}",
        *_capacity_flags(request, hours),
        *request.flags,
    ]
    if not request.queued:
        return [*_gcloud("tpu-vm", "create", request), *size, f"--version={request.runtime_version}", *shared]
    nodes = [f"--node-id={request.name}"]
    if request.slices > 1:
        nodes = [f"--node-count={request.slices}", f"--node-prefix={request.name}"]
    until = f"--valid-until-duration={round(request.max_hours * 3600)}s"
    version = f"--runtime-version={request.runtime_version}"
    create = _gcloud("queued-resources", "create", request)
    if request.capacity == FLEX_START:  # Only gcloud alpha has its flags.
        create.insert(1, "alpha")
    return [*create, *nodes, *size, version, until, *shared]


def _capacity_flags(request: Request, hours: float) -> list[str]:
    """Return the flags for the kind of machines. With flex-start, Cloud TPU itself deletes the machines after their time."""
    if request.capacity == FLEX_START:
        seconds = round((hours + MARGIN_HOURS) * 3600)
        return [f"--provisioning-model={FLEX_START}", f"--max-run-duration={seconds}s"]
    return [f"--{request.capacity}"] if request.capacity else []


def delete_command(request: Request) -> list[str]:
    """Return the command that deletes the resource with all its nodes."""
    if request.backend == "gke":
        return ["kubectl", "delete", "jobset", request.name, "--ignore-not-found"]
    if request.backend == "slurm":
        return ["scancel", "--me", f"--name={request.name}"]
    if request.queued:
        return [*_gcloud("queued-resources", "delete", request), "--force", "--quiet"]
    return [*_gcloud("tpu-vm", "delete", request), "--quiet"]


def ssh(request: Request, command: str) -> list[str]:
    """Return the command that runs a command on every host."""
    nodes = ["--node=all"] if request.queued else []
    group = "queued-resources" if request.queued else "tpu-vm"
    return [*_gcloud(group, "ssh", request), *nodes, "--worker=all", f"--command={command}"]


def observe_commands(request: Request) -> list[list[str]]:
    """Return the commands whose outputs, as JSON, tell the state of the resource and of its nodes."""
    where = [f"--zone={request.zone}", f"--project={request.project}", "--format=json"]
    nodes = ["gcloud", "compute", "tpus", "tpu-vm", "list", *where]
    return [nodes, ["gcloud", "compute", "tpus", "queued-resources", "list", *where]] if request.queued else [nodes]


def _gcloud(group: str, verb: str, request: Request) -> list[str]:
    return ["gcloud", "compute", "tpus", group, verb, request.name, f"--zone={request.zone}", f"--project={request.project}"]


def format_steps(steps: Iterable[Step]) -> str:
    """Return the steps as text: commands as they would be typed, and the names of files, some with their text."""
    texts = []
    for step in steps:
        if isinstance(step, Run):
            texts.append(f"$ {shlex.join(step.words)}")
            continue
        is_shown = step.path.endswith(SHOWN)
        shown = "".join(f"\n    {line}" for line in step.content.decode().splitlines()) if is_shown else ""
        texts.append(f"write {step.path}{shown}")
    return "\n".join(texts)
