"""Counts the hours of a launch: those in which its machines have been seen, and those that its run has recorded.

`launch keep` looks at the machines every minute, and writes into the launch's folder how long each has been there. A machine that
boots, installs or fails costs too, and a run records nothing then.
"""

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mixer_jax.errors import UserError
from mixer_jax.launch.commands import Observed
from mixer_jax.launch.request import Request
from mixer_jax.storage import MAX_JSON_BYTES, json_text, open_storage
from mixer_jax.supervision.recorded_starts import read_starts

MACHINES = "machines.json"  # {node: [[the time of its creation, the time at which it was last seen], ...]}
FREE_STATES = ("PREEMPTED", "TERMINATED", "STOPPED")  # A node in one of these states costs nothing.


class Span(NamedTuple):
    """A time, from `began` to `ended`, in seconds since 1970."""

    began: float
    ended: float


Spans = dict[str, list[Span]]  # {node: the spans in which it was there}


def add_seen(spans: Mapping[str, list[Span]], observed: Observed, now: float) -> Spans:
    """Return the spans with what is there now. A node that was created anew has a further span."""
    added = {node: list(known) for node, known in spans.items()}
    for node, created in observed.created.items():
        if observed.nodes[node] not in FREE_STATES:
            others = [span for span in added.get(node, []) if span.began != created]
            added[node] = [*others, Span(created, max(created, now))]
    return added


def covered_hours(spans: Iterable[Span], since: float) -> float:
    """Return the length of the union of the spans after the time `since`, in hours."""
    seconds, end = 0.0, since
    for span in sorted(spans):
        seconds += max(0.0, span.ended - max(span.began, end))
        end = max(end, span.ended)
    return seconds / 3600


def read_machines(request: Request) -> Spans:
    """Return what has been written of the machines of a launch. Raises UserError if it is damaged."""
    storage = open_storage(request.folder)
    text = storage.read_whole(MACHINES, MAX_JSON_BYTES)
    try:
        content = json.loads(text or b"{}")
        return {node: [Span(float(began), float(ended)) for began, ended in rows] for node, rows in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{storage.url}/{MACHINES} is damaged ({error}). Remove it; the hours in it are no longer counted then."
        ) from error


def note_machines(request: Request, observed: Observed, now: float) -> None:
    """Write which machines of a launch are there now. Raises UserError if what was written before is damaged."""
    known = read_machines(request)
    added = add_seen(known, observed, now)
    if added != known:
        open_storage(request.folder).write(MACHINES, json_text(added).encode() + b"\n")


def hours_used(request: Request, workdir: str, observed: Observed, since: float, now: float) -> float:
    """Return the hours since a time in which machines were there, as far as that is known, or the run has recorded its time.

    Args:
      request: the launch.
      workdir: the folder of the run.
      observed: what is there now.
      since: the time from which hours count, in seconds since 1970.
      now: the time.

    Raises UserError if the record of the machines is damaged.
    """
    machines = add_seen(read_machines(request), observed, now)
    try:
        starts = [Span(start.began, start.ended) for start in read_starts(workdir)]
    except UserError:  # Nothing is recorded yet.
        starts = []
    return covered_hours([*starts, *(span for spans in machines.values() for span in spans)], since)
