"""The hours of a launch are those in which machines were seen or the run has recorded its time, each counted once."""

import json

import pytest
from launch.requests import REQUESTS

from mixer_jax.errors import UserError
from mixer_jax.launch.commands import Observed
from mixer_jax.launch.hours import MACHINES, Span, add_seen, covered_hours, hours_used, note_machines, read_machines
from mixer_jax.launch.tpu import _unix_time
from mixer_jax.storage import open_storage

HOUR = 3600.0


def seen(created: float, state: str = "READY") -> Observed:
    return Observed("ACTIVE", {"l16": state}, {"l16": created})


@pytest.mark.parametrize(
    ("spans", "since", "hours"),
    [
        ([], 0, 0),
        ([(1, 3)], 0, 2),
        ([(1, 3), (5, 6)], 0, 3),
        ([(5, 6), (1, 3), (2, 4)], 0, 4),  # In any order; what overlaps counts once.
        ([(1, 10), (2, 3), (4, 5)], 0, 9),
        ([(1, 3), (5, 9)], 2, 5),  # What was before a time does not count.
        ([(1, 3)], 4, 0),
    ],
)
def test_hours_are_the_length_of_the_union_of_spans_after_a_time(spans, since, hours):
    assert covered_hours([Span(began * HOUR, ended * HOUR) for began, ended in spans], since * HOUR) == hours


def test_a_machine_is_counted_from_its_creation_while_it_is_seen_and_one_that_was_created_anew_from_there():
    spans = add_seen({}, seen(1 * HOUR), 2 * HOUR)
    spans = add_seen(spans, seen(1 * HOUR), 3 * HOUR)
    spans = add_seen(spans, seen(1 * HOUR, "PREEMPTED"), 5 * HOUR)
    spans = add_seen(spans, Observed("WAITING_FOR_RESOURCES"), 6 * HOUR)
    spans = add_seen(spans, seen(8 * HOUR, "CREATING"), 9 * HOUR)
    assert spans == {"l16": [(1 * HOUR, 3 * HOUR), (8 * HOUR, 9 * HOUR)]}


def test_slices_of_one_run_that_are_there_at_the_same_time_count_once():
    both = Observed("ACTIVE", {"a": "READY", "b": "READY"}, {"a": 1 * HOUR, "b": 2 * HOUR})
    spans = add_seen({}, both, 4 * HOUR)
    assert covered_hours([span for known in spans.values() for span in known], 0) == 3


def test_what_machines_and_run_have_used_is_kept_beside_the_launch(cloud):
    request = REQUESTS["v4-64"]._replace(root="gs://bucket/mixer")

    def used(observed: Observed, now: float, since: float = 0) -> float:
        return hours_used(request, request.workdir, observed, since, now * HOUR)

    # It is counted before the run has recorded anything, and after the machine is gone.
    assert used(seen(1 * HOUR), now=2) == 1
    assert open_storage(request.folder).names() == []  # To look changes nothing.
    note_machines(request, seen(1 * HOUR), 3 * HOUR)
    assert used(Observed(), now=9) == 2
    # What the run has recorded while nobody looked counts too.
    row = {
        "start": 0,
        "phase": "training",
        "seconds": 3 * HOUR,
        "began": 2 * HOUR,
        "ended": 5 * HOUR,
        "first_step": 0,
        "last_step": 4,
    }
    open_storage(request.workdir).write("goodput.jsonl", json.dumps(row | {"ending": "done"}).encode() + b"\n")
    assert used(Observed(), now=9) == 4 and used(Observed(), now=9, since=4 * HOUR) == 1


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"l16": 1}', b'{"l16": [[1]]}', b'{"l16": [["a", 2]]}'])
def test_a_damaged_record_of_machines_is_refused_by_name(text: bytes, cloud):
    request = REQUESTS["v4-64"]._replace(root="gs://bucket/mixer")
    open_storage(request.folder).write(MACHINES, text)
    with pytest.raises(UserError, match=r"launches/l16/machines\.json is damaged"):
        read_machines(request)


def test_a_time_of_the_api_is_read_to_the_microsecond():
    assert _unix_time("1970-01-02T00:00:01.250000999Z") == 86401.25
    assert _unix_time("1970-01-01T02:00:00+01:00") == 3600
