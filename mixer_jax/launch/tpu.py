"""Cloud TPU as gcloud shows it: virtual machines and queued resources. Only here is their state read."""

import datetime
import json
import re
import subprocess
from typing import Any

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch.commands import JOB, Observed, observe_commands
from mixer_jax.launch.request import Request, check_place
from mixer_jax.storage import MAX_JSON_BYTES, open_storage

SECONDS = 300  # The longest time for a command that only reads.
MAX_CODE_BYTES = 10


def observe(request: Request, digest: str) -> Observed:
    """Return the state of the resource and of the launch in the bucket. `digest` is that of the bundle.

    Raises UserError without gcloud, and EnvironmentFault if it fails.
    """
    launch = open_storage(request.folder)
    job = (launch.read_whole(JOB, MAX_JSON_BYTES) or b"").decode()
    return observe_machines(request)._replace(
        has_bundle=open_storage(f"{request.root}/bundles").generation(f"{digest}.tar") is not None,
        job=job,
        ended=read_ended(request, job),
    )


def observe_machines(request: Request) -> Observed:
    """Return the state of the resource alone. Raises what `observe` raises."""
    found, *queued = [_read(command) for command in observe_commands(request)]
    nodes = [node for node in found if _belongs(node, request)]
    states = [resource["state"]["state"] for resource in (queued[0] if queued else []) if _last(resource["name"]) == request.name]
    return Observed(
        state=states[0] if states else "",
        nodes={_last(node["name"]): node.get("state", "UNKNOWN") for node in nodes},
        created={_last(node["name"]): _unix_time(node["createTime"]) for node in nodes if "createTime" in node},
        num_hosts=sum(len(node.get("networkEndpoints", [])) for node in nodes),
    )


def request_of_machines(name: str, zone: str, project: str) -> Request:
    """Return a request for the machines that have this name, as a queued resource if there is one, for what needs no more.

    Raises UserError for a zone or a project that cannot be, and what `observe` raises.
    """
    check_place(zone, project)
    request = Request("tpu", name, root="", max_hours=0, words=(), zone=zone, project=project, queued=True)
    return request._replace(queued=bool(observe_machines(request).state))


def read_ended(request: Request, job: str) -> dict[str, int]:
    """Return {host: the code with which this job has ended there}."""
    match = re.search(r"^LAUNCHED=(\d+)$", job, re.MULTILINE)
    if not match:
        return {}
    folder = open_storage(f"{request.folder}/hosts/{match[1]}")
    codes = {host: (folder.read_whole(host, MAX_CODE_BYTES) or b"").strip() for host in folder.names()}
    return {host: int(code) for host, code in codes.items() if code.isdigit()}


def _belongs(node: dict[str, Any], request: Request) -> bool:
    """Return whether a node is one of the request. Those of several slices have a number after the name."""
    name = request.name if request.slices == 1 else rf"{request.name}-\d+"
    return re.fullmatch(name, _last(node["name"])) is not None


def _unix_time(text: str) -> float:
    """Return a time of an API, such as 2026-12-01T12:00:00.123456789Z, in seconds since 1970."""
    return datetime.datetime.fromisoformat(text).timestamp()


def _last(name: str) -> str:
    """Return the last part of projects/P/locations/Z/nodes/N."""
    return name.rpartition("/")[2]


def _read(command: list[str]) -> Any:
    """Return the output of a command, which is JSON."""
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
        return json.loads(output or "[]")
    except FileNotFoundError:
        raise UserError(
            f"There is no program {command[0]} here: install the Google Cloud CLI, and log in (gcloud auth login)."
        ) from None
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"{' '.join(command)} does not answer within {SECONDS} s.") from None
    except (subprocess.CalledProcessError, ValueError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip()
        raise EnvironmentFault(f"{' '.join(command)} failed: {reason}") from None
