"""The record of a run's starts: it is read whole, or refused with the name of the file and the line."""

import json
import math

import pytest
from supervision.histories import BEGAN, THREE_STARTS, rows_of, text_of, write_record

from mixer_jax.errors import UserError
from mixer_jax.supervision.recorded_starts import parse_starts, read_starts

FILE = "run/goodput.jsonl"


def test_a_start_has_the_phases_of_its_rows(tmp_path):
    starts = read_starts(write_record(tmp_path / "run", THREE_STARTS))
    assert [start.number for start in starts] == [0, 1, 2]
    assert [(start.first_step, start.last_step, start.ending) for start in starts] == [
        (0, 4000, "running"), (3500, 4700, "stalled"), (4500, 8000, "done"),
    ]  # fmt: skip
    assert starts[1].phases == {"initialization": 17.1, "restore": 22.3, "compile": 12.2, "training": 900.5, "stalled": 640.0}


def test_starts_are_in_their_order_whatever_the_order_of_the_rows():
    assert parse_starts(text_of(THREE_STARTS[::-1]), FILE) == parse_starts(text_of(THREE_STARTS), FILE)


WRONG_VALUES = {
    "start": [-1, 0.5, "0", None, True, 10**400, [0]],
    "phase": ["", "sleeping", "steps done twice", 3, None, ["data"], {"data": 1}],
    "seconds": [-0.001, math.nan, math.inf, -math.inf, 10**400, "1", None, False, []],
    "began": [-1, math.nan, 1e300, "2026", None],
    "ended": [BEGAN - 1, math.nan, 1e300, "2026", None],
    "first_step": [-1, 30, 0.5, "0", None],
    "last_step": [-1, 0.5, "20", None, False],
    "ending": ["killed", "", 0, None, ["done"]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_VALUES.items() for value in values])
def test_a_wrong_value_is_refused_by_file_line_and_field(name, value):
    rows = rows_of(0, BEGAN, 10, 20, "done", initialization=1.0, training=2.0)
    rows[1][name] = value
    with pytest.raises(UserError, match=rf"{FILE} is damaged in line 2: .*(\b{name}\b|differs from an earlier row of start 0)"):
        parse_starts(text_of(rows), FILE)
    with pytest.raises(UserError, match=rf"{FILE} is damaged in line 1: .*\b{name}\b"):
        parse_starts(text_of(rows[1:]), FILE)


@pytest.mark.parametrize("name", rows_of(0, BEGAN, 0, 1, training=1.0)[0])
def test_a_missing_field_is_refused_by_file_line_and_field(name):
    rows = rows_of(0, BEGAN, 10, 20, "done", initialization=1.0, training=2.0)
    del rows[1][name]
    with pytest.raises(UserError, match=rf"{FILE} is damaged in line 2: it has no {name}\."):
        parse_starts(text_of(rows), FILE)


@pytest.mark.parametrize("line", [b"{", b"3", b"null", b"\xff\x00", b"[" * 100_000, b"", b'{"start": 0, "pha'])
def test_a_line_that_is_no_row_is_refused_by_file_and_line(line):
    lines = text_of(THREE_STARTS).splitlines()
    for text in ([*lines[:3], line, *lines[3:]], [*lines[:3], line]):
        with pytest.raises(UserError, match=rf"{FILE} is damaged in line 4: it holds no table of names and values\. Restore"):
            parse_starts(b"\n".join(text) + b"\n", FILE)


def test_a_phase_that_is_there_twice_is_refused():
    row = THREE_STARTS[2]
    with pytest.raises(UserError, match="in line 4: start 0 has two rows of the phase training"):
        parse_starts(text_of([*THREE_STARTS[:3], row, *THREE_STARTS[3:]]), FILE)


@pytest.mark.parametrize("line", range(len(THREE_STARTS)))
def test_a_row_that_is_gone_is_noticed_because_the_seconds_do_not_add_up(line):
    start = THREE_STARTS[line]["start"]
    with pytest.raises(UserError, match=rf"{FILE} is damaged in start {start}: the seconds of its rows add up to .* it lasted"):
        parse_starts(text_of(THREE_STARTS[:line] + THREE_STARTS[line + 1 :]), FILE)


def test_no_single_change_of_a_number_goes_unnoticed():
    for line, row in enumerate(THREE_STARTS):
        for name, value in row.items():
            if name != "phase" and value != "running":
                changed = [*THREE_STARTS]
                changed[line] = row | {name: "failed" if name == "ending" else value + 1}
                with pytest.raises(UserError, match=FILE):
                    parse_starts(text_of(changed), FILE)


def test_further_fields_of_a_later_version_are_passed_over():
    rows = [row | {"slices": 2} for row in THREE_STARTS]
    assert parse_starts(text_of(rows), FILE) == parse_starts(text_of(THREE_STARTS), FILE)


@pytest.mark.parametrize("content", [None, b""])
def test_a_folder_without_a_record_is_named_with_what_to_type(tmp_path, content):
    if content is not None:
        (tmp_path / "goodput.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=rf"{tmp_path} has no record of its time: .*Name the folder that was a run.s --workdir"):
        read_starts(tmp_path)


def test_a_record_in_a_bucket_is_read(cloud):
    cloud.objects["bucket", "runs/a/goodput.jsonl"] = text_of(THREE_STARTS)
    assert read_starts("gs://bucket/runs/a/") == parse_starts(text_of(THREE_STARTS), FILE)
    with pytest.raises(UserError, match=r"gs://bucket/runs/b has no record of its time"):
        read_starts("gs://bucket/runs/b")
    cloud.objects["bucket", "runs/a/goodput.jsonl"] = json.dumps({"start": 0}).encode()
    with pytest.raises(UserError, match=r"gs://bucket/runs/a/goodput\.jsonl is damaged in line 1: it has no phase"):
        read_starts("gs://bucket/runs/a")
