"""What can be done with a launch: show it, stop it, delete it, keep it alive."""

import shlex
import time

from mixer_jax.checkpoints.committed_steps import committed_steps
from mixer_jax.endings import STOPPED
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch import follow, keep, tpu
from mixer_jax.launch.bundle import Bundle
from mixer_jax.launch.carry_out import carry_out, run
from mixer_jax.launch.commands import (
    FINAL_CODES,
    GONE,
    Moment,
    Observed,
    Run,
    delete_command,
    delete_steps,
    format_steps,
    launch_steps,
    situation,
    stop_command,
)
from mixer_jax.launch.hours import hours_used, note_machines
from mixer_jax.launch.record import Record, find_record, forget, state_folder
from mixer_jax.launch.request import Request
from mixer_jax.storage import open_storage
from mixer_jax.supervision.account import account
from mixer_jax.supervision.account_text import summary
from mixer_jax.supervision.recorded_starts import read_starts

MAX_BUNDLE_BYTES = 2**30


def status(record: Record, now: float) -> str:
    """Return what is known of a launch: resource, hosts, goodput and hours."""
    request, parts, observed = record.request, [], Observed()
    if request.backend == "tpu":
        observed = tpu.observe(request, record.bundle)
        nodes = "".join(f", node {name} {state}" for name, state in sorted(observed.nodes.items()))
        queued = f", queued resource {observed.state or 'absent'}" if request.queued else ""
        parts.append(f"{request.name} is {situation(request, observed)}{queued}{nodes}, {observed.num_hosts} hosts.")
        parts += [
            f"{host} ended with {code} {FINAL_CODES.get(code, '')}".rstrip() for host, code in sorted(observed.ended.items())
        ]
    for workdir in request.workdirs:
        parts.append(f"{workdir}\n{follow.format_heartbeats(follow.heartbeats(workdir), now)}")
        try:
            parts.append(f"{summary(account(read_starts(workdir)))}")
        except UserError:
            parts.append("It has recorded no time yet.")
        hours = hours_used(request, workdir, observed, record.counted_from, now)
        parts.append(f"It has used {hours:.1f} of {request.max_hours:g} hours.")
    return "\n".join(parts)


def stop(record: Record) -> None:
    """Stop the run. Raises EnvironmentFault if it does not end as stopped and saved."""
    command, name = stop_command(record.request), record.request.name
    print(format_steps([Run(command)]), flush=True)
    code = run(command)
    if code not in (0, STOPPED):
        raise EnvironmentFault(f"{shlex.join(command)} ended with {code}: see `launch logs {name}`.")
    print(
        f"{name} is stopped and saved."
        if code == STOPPED
        else f"{name} was asked to stop, or had ended: see `launch status {name}`."
    )


def delete(name: str, root: str = "", zone: str = "", project: str = "") -> None:
    """Delete the resource and the record of a launch, as far as they are there. It can be repeated, also after it was cut off.

    The resource is deleted first, so that its record is there until nothing costs any more.

    Args:
      name: the name that was launched.
      root: where its record is, or "" for this machine.
      zone: the zone in which machines of Cloud TPU with this name are deleted, even if no record names them, or "".
      project: the project of these machines, or "".
    """
    record = _record_to_delete(name, root)
    requests = [record.request] if record else []
    if zone or project:
        requests.append(tpu.request_of_machines(name, zone, project))
    elif not record and root.startswith("/"):  # The root of a launch on SLURM, whose jobs are found by their name.
        requests.append(Request("slurm", name, root, max_hours=0, words=()))
    was_there = [_delete_resource(request) for request in requests]
    if requests:
        forget(name, record.request.root if record else root)
    if record:
        print(f"{name} is deleted. Its runs are kept: {', '.join(record.request.workdirs)}")
    elif any(was_there):
        print(f"{name} is deleted.")
    else:
        print(
            f"There is nothing of the name {name}: it has no record {f'in {root}' if root else 'on this machine'}, so it was "
            "deleted before, or launched elsewhere. For a launch of another machine, add --bucket=gs://BUCKET/PATH, its bucket "
            "or folder. For machines of Cloud TPU without a record, add --zone=ZONE --project=PROJECT."
        )


def _record_to_delete(name: str, root: str) -> Record | None:
    """Return the record under `root` or, if it is there no more, this machine's of the same launch, which is removed last."""
    there, here = find_record(name, root), find_record(name)
    return there or (here if here and here.request.root == root.rstrip("/") else None)


def keep_alive(record: Record) -> None:
    """Watch a launch until its run has ended. Raises UserError for a launch that needs no watching."""
    request = record.request
    if request.backend != "tpu":
        raise UserError(f"{request.backend} starts {request.name} again by itself. `launch status` shows how it is.")

    def launch_again(hours: float) -> None:
        bundle = _read_bundle(record)
        moment = Moment(int(time.time()), hours, state_folder(request.name), record.counted_from)
        carry_out(launch_steps(request, bundle, tpu.observe(request, bundle.digest), moment))

    def count_hours(observed: Observed) -> float:
        now = time.time()
        note_machines(request, observed, now)
        return hours_used(request, request.workdir, observed, record.counted_from, now)

    keeper = keep.Keeper(
        observe=lambda: tpu.observe(request, record.bundle),
        count_hours=count_hours,
        newest_step=lambda: max(committed_steps(request.workdir), default=-1),
        launch=launch_again,
        delete=lambda: _delete_resource(request),
    )
    keep.keep(request, keeper)
    print(f"{request.name} is done: {request.workdir}")


def _read_bundle(record: Record) -> Bundle:
    """Return the code of a launch. Raises UserError if it is not there any more, or is another one."""
    folder = f"{record.request.root}/bundles"
    bundle = Bundle(record.commit, open_storage(folder).read_whole(f"{record.bundle}.tar", MAX_BUNDLE_BYTES) or b"")
    if bundle.digest != record.bundle:
        raise UserError(f"{folder}/{record.bundle}.tar is gone or damaged. Launch {record.request.name} again.")
    return bundle


def _delete_resource(request: Request) -> bool:
    """Delete the resource of a launch if there is one, and return whether there was, as far as that is known.

    Raises EnvironmentFault if it is there afterwards.
    """
    if request.backend != "tpu":
        carry_out([Run(delete_command(request))])  # It does nothing, and succeeds, if there is nothing of this name.
        return False
    steps = delete_steps(request, tpu.observe_machines(request))
    try:
        carry_out(steps)
    except EnvironmentFault:
        # A host whose run has ended deletes the resource too, and may have been first.
        if situation(request, tpu.observe_machines(request)) != GONE:
            raise
    return bool(steps)
