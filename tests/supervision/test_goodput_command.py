"""`python -m mixer_jax goodput`: the seconds that it shows add up, line by line and column by column."""

import json
import re
import sys

import pytest
from supervision.histories import BEGAN, THREE_STARTS, random_history, rows_of, text_of, write_record

from mixer_jax.__main__ import main
from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.supervision.account import NOTES, PARTS, account
from mixer_jax.supervision.account_text import duration_text, format_account
from mixer_jax.supervision.recorded_starts import parse_starts


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", "goodput", *arguments])
        return main(), *capsys.readouterr()

    return call


def tables_of(text: str) -> tuple[list[list[float]], dict[str, float]]:
    """Return the seconds in the lines of the table of starts, of which the last is that of the sums, and the table of totals."""
    _, starts, totals, _ = text.strip().split("\n\n")
    lines = [[float(number) for number in re.findall(r"(?<= )\d+\.\d(?= |$)", line)] for line in starts.splitlines()[2:]]
    shown = [
        re.fullmatch(r"(.+?) +(\d+\.\d) +[\d.]+(?: %)?", line) for line in totals.splitlines()[1:] if not line.endswith(" -")
    ]
    return lines, {match[1]: float(match[2]) for match in shown}


@pytest.mark.parametrize("seed", range(50))
def test_the_seconds_that_are_shown_add_up(seed):
    rows, _ = random_history(seed)
    lines, totals = tables_of(format_account("run", account(parse_starts(text_of(rows), "file"))))
    assert len(lines) == len({row["start"] for row in rows}) + 1
    for wall_seconds, *parts in lines:
        assert sum(parts) == pytest.approx(wall_seconds, abs=1e-6)
    *starts, sums = lines
    assert [sum(column) for column in zip(*starts, strict=True)] == pytest.approx(sums, abs=1e-6)
    wall_seconds = totals.pop("wall time")
    assert totals.keys() == set(PARTS) and sum(totals.values()) == pytest.approx(wall_seconds, abs=1e-6)
    assert [wall_seconds, *(value for value in totals.values() if value)] == sums


def test_a_run_has_a_line_for_each_start_and_its_totals_with_their_shares(tmp_path, call):
    run = write_record(tmp_path / "run", THREE_STARTS)
    code, out, _ = call(str(run))
    lines = out.splitlines()
    assert code == DONE and lines[0] == f"{run}: 3 starts, 2 h 14 min of wall time, goodput 72.6 %."
    assert [re.split(r" {2,}", line.strip())[:4] for line in lines[4:7]] == [
        ["0", "2025-12-01 11:36:40", "0-4000", "killed"],
        ["1", "2025-12-01 12:35:00", "3500-4700", "stalled"],
        ["2", "2025-12-01 13:06:40", "4500-8000", "done"],
    ]
    assert re.search(r"^stalled +640\.0 +7\.9 %$", out, re.MULTILINE)
    assert all(note in out for note in NOTES)


def test_a_last_start_whose_end_is_not_recorded_may_run_or_have_been_killed(tmp_path, call):
    rows = rows_of(0, BEGAN, 0, 10, training=20.0)
    assert "running or killed" in call(str(write_record(tmp_path / "run", rows)))[1]


def test_json_has_a_line_for_each_run_with_the_same_seconds(tmp_path, call):
    runs = [str(write_record(tmp_path / name, THREE_STARTS)) for name in "ab"]
    code, out, _ = call(*runs, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == DONE and [figures["run"] for figures in found] == runs
    for figures in found:
        assert sum(figures["seconds"].values()) == pytest.approx(figures["wall_seconds"], abs=1e-6)
        assert figures["goodput"] == figures["seconds"]["productive"] / figures["wall_seconds"]
        assert sum(start["seconds"]["waiting_for_data"] for start in figures["starts"]) == figures["seconds"]["waiting_for_data"]
        assert [start["first_step"] for start in figures["starts"]] == [0, 3500, 4500]


def test_several_runs_have_their_tables_one_after_the_other(tmp_path, call):
    runs = [str(write_record(tmp_path / name, THREE_STARTS)) for name in "ab"]
    _, out, _ = call(*runs)
    assert out.count("goodput 72.6 %") == 2 and out.index(runs[0]) < out.index(runs[1])


def test_a_damaged_record_is_one_message_and_no_figure(tmp_path, call):
    run = write_record(tmp_path / "run", THREE_STARTS[1:])
    code, out, err = call(str(run))
    assert (code, out) == (TO_MEND, "") and err.startswith(f"error: {run}/goodput.jsonl is damaged in start 0: ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (8.54, "8.5 s"), (60, "1 min 0 s"), (750, "12 min 30 s"), (3599.7, "1 h 0 min"), (8040, "2 h 14 min"),
        (273_600, "3 d 4 h"), (86_400 * 400, "400 d 0 h"),
    ],
)  # fmt: skip
def test_a_duration_has_two_units(seconds, text):
    assert duration_text(seconds) == text
