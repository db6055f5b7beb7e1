"""The section about where the time of runs went: what it shows adds up, and is what `goodput` prints."""

import json
import math

import pytest
from supervision.histories import BEGAN, THREE_STARTS, random_history, rows_of, text_of, write_record

from mixer_jax.pages.parts import Bars, Folded, Section, Table, Text
from mixer_jax.report.page import report_runs
from mixer_jax.report.runs import read_run
from mixer_jax.report.sections import run_section
from mixer_jax.report.wall_time import MAX_STARTS, MAX_UNFOLDED, STYLES, wall_time_sections
from mixer_jax.supervision.account import PARTS, account
from mixer_jax.supervision.recorded_starts import parse_starts


def seconds_in(text: str) -> float:
    return float(text.split("\u2009")[0].split(" (")[0].replace("\u202f", ""))


def of_class(parts, kind: type) -> list:
    return [part for part in parts if isinstance(part, kind)]


@pytest.fixture
def section_of(tmp_path, write_run):
    def section_of(**records: list[dict] | None) -> Section:
        """Return the section about runs with these names and rows; None stands for a run without a record."""
        for name, rows in records.items():
            write_run(tmp_path / name)
            if rows is not None:
                write_record(tmp_path / name, rows)
        (section,) = wall_time_sections([read_run(tmp_path / name) for name in records])
        return section

    return section_of


def test_every_part_has_a_style_of_its_own():
    assert STYLES.keys() == set(PARTS) and len(set(STYLES.values())) == len(PARTS)


@pytest.mark.parametrize("seed", range(12))
def test_the_seconds_of_a_run_add_up_in_bars_legend_and_table(section_of, seed):
    rows, _ = random_history(seed)
    found = account(parse_starts(text_of(rows), "file"))
    section = section_of(run=rows)
    (figure,), (table,) = of_class(section.parts, Bars), of_class(section.parts, Table)
    total = seconds_in(figure.total)
    assert total == found.wall_seconds
    assert sum(seconds_in(entry.value) for entry in figure.legend) == pytest.approx(total, abs=1e-6)
    *starts, sums = [[seconds_in(cell) for cell in row[3:]] for row in table.rows]
    assert len(starts) == len(found.entries)
    for wall_seconds, *parts in [*starts, sums]:
        assert sum(parts) == pytest.approx(wall_seconds, abs=1e-6)
    assert [sum(column) for column in zip(*starts, strict=True)] == pytest.approx(sums, abs=1e-6)

    end = 0.0
    for bar, (wall_seconds, *_) in zip(figure.bars[-len(starts) :], starts, strict=True):
        assert bar.offset == pytest.approx(end)
        assert sum(percent for _, percent, _ in bar.parts) == pytest.approx(100 * wall_seconds / total)
        assert sum(seconds_in(value) for *_, value in bar.parts) == pytest.approx(wall_seconds, abs=1e-6)
        end += 100 * wall_seconds / total
    assert end == pytest.approx(100)
    if len(starts) > 1:
        assert sum(percent for _, percent, _ in figure.bars[0].parts) == pytest.approx(100)


def test_a_run_shows_its_starts_in_the_order_of_time_and_a_summary(section_of):
    section = section_of(run=THREE_STARTS)
    (figure,), (table,) = of_class(section.parts, Bars), of_class(section.parts, Table)
    assert section.title == "Where the time went"
    assert section.parts[0] == Text("3 starts, 2 h 14 min of wall time, goodput 72.6 %.")
    assert [bar.label for bar in figure.bars] == [
        "all", "0: 2025-12-01 11:36:40 UTC", "1: 2025-12-01 12:35:00 UTC", "2: 2025-12-01 13:06:40 UTC",
    ]  # fmt: skip
    assert [row[:3] for row in table.rows] == [
        ["0", "0\u20134000", "killed"], ["1", "3500\u20134700", "stalled"], ["2", "4500\u20138000", "done"], ["all", "", ""],
    ]  # fmt: skip
    assert table.emphasized == 3 and any("estimate" in note for note in table.notes)


def test_a_run_with_one_start_has_one_bar(section_of):
    section = section_of(run=rows_of(0, BEGAN, 0, 40, "done", initialization=5.0, training=15.0))
    ((bar,),) = (figure.bars for figure in of_class(section.parts, Bars))
    assert (bar.offset, [percent for _, percent, _ in bar.parts]) == (0.0, [75.0, 25.0])


def test_a_run_that_has_just_begun_has_no_time_to_divide(section_of):
    section = section_of(run=rows_of(0, BEGAN, 0, 0, initialization=0.0))
    assert section.parts[0] == Text("1 start, 0.0 s of wall time, goodput -.")


def test_many_starts_are_folded_and_still_add_up(section_of):
    rows = [row for i in range(MAX_UNFOLDED + 1) for row in rows_of(i, BEGAN + 20 * i, 0, 4, "failed", training=3.0, data=1.25)]
    section = section_of(run=rows)
    (figure,), (folded,) = of_class(section.parts, Bars), of_class(section.parts, Folded)
    (starts,), (table,) = of_class(folded.parts, Bars), of_class(folded.parts, Table)
    assert [bar.label for bar in figure.bars] == ["all"] and len(starts.bars) == MAX_UNFOLDED + 1 == len(table.rows) - 1
    assert sum(seconds_in(row[3]) for row in table.rows[:-1]) == pytest.approx(seconds_in(table.rows[-1][3]), abs=1e-6)


def test_of_very_many_starts_the_last_are_shown_and_the_sums_of_all_are_said_to_be_that(section_of):
    count = MAX_STARTS + 5
    section = section_of(run=[row for i in range(count) for row in rows_of(i, BEGAN + 4 * i, 0, 4, "failed", training=4.0)])
    (folded,) = of_class(section.parts, Folded)
    (starts,), (table,) = of_class(folded.parts, Bars), of_class(folded.parts, Table)
    assert [row[0] for row in table.rows] == [*map(str, range(5, count)), "all"]
    assert len(starts.bars) == MAX_STARTS and starts.bars[0].offset == pytest.approx(100 * 5 / count)
    assert seconds_in(table.rows[-1][3]) == 4.0 * count
    assert table.notes[0] == "The last 300 starts have a row. The sums are those of all 305."


def test_several_runs_have_a_bar_and_a_row_each_and_their_starts_folded(section_of):
    section = section_of(a=THREE_STARTS, b=rows_of(0, BEGAN, 0, 40, "done", initialization=5.0, training=15.0), old=None)
    (figure,), (table,) = of_class(section.parts, Bars), of_class(section.parts, Table)
    assert [bar.label for bar in figure.bars] == ["a", "b"] and {bar.offset for bar in figure.bars} == {0.0}
    assert [sum(percent for _, percent, _ in bar.parts) for bar in figure.bars] == pytest.approx([100, 100])
    assert [row[:3] for row in table.rows] == [["a", "3", "72.6 %"], ["b", "1", "75.0 %"]]
    for row in table.rows:
        wall_seconds, *parts = map(seconds_in, row[3:])
        assert sum(parts) == pytest.approx(wall_seconds, abs=1e-6)
    assert [part.title for part in of_class(section.parts, Folded)] == ["a", "b"]
    assert [part.text for part in of_class(section.parts, Text)] == ["Not shown: old. Their time is not recorded."]


def test_a_run_without_a_record_keeps_the_time_of_its_last_start_and_one_with_a_record_has_it_once(tmp_path, write_run):
    for name in ("old", "new"):
        write_run(tmp_path / name)
    write_record(tmp_path / "new", THREE_STARTS)
    old, new = (read_run(tmp_path / name) for name in ("old", "new"))
    assert wall_time_sections([old]) == []
    assert [len(of_class(run_section(run).parts, Bars)) for run in (old, new)] == [1, 0]


def test_a_damaged_record_costs_its_own_figures_alone(section_of):
    damaged = THREE_STARTS[1:]
    (text,) = section_of(run=damaged).parts
    assert text.is_missing and "goodput.jsonl is damaged in start 0: " in text.text
    section = section_of(a=damaged, b=THREE_STARTS)
    assert [row[0] for table in of_class(section.parts, Table) for row in table.rows] == ["b"]
    assert ["a/goodput.jsonl is damaged" in part.text for part in of_class(section.parts, Text)] == [True]


@pytest.mark.parametrize("value", [None, -1, 10**400, math.nan, "\ud800", [[]], {"": {"": ""}}], ids=range(7))
def test_a_record_with_any_value_changed_makes_a_page_that_says_so(tmp_path, write_run, value):
    write_run(tmp_path / "run")
    rows = rows_of(0, BEGAN, 0, 40, "done", initialization=5.0, training=15.0)
    for number, row in enumerate(rows):
        for name in row:
            changed = [*rows]
            changed[number] = row | {name: value}
            (tmp_path / "run" / "goodput.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
            page = report_runs([tmp_path / "run"], tmp_path / "page.html", pictures=False).read_text()
            assert f"goodput.jsonl is damaged in line {number + 1}" in page
