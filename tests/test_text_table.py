"""Figures become tables whose columns line up, nested names, or one line of JSON for programs."""

import json

from mixer_jax.text_table import format_figures, format_table, print_figures


def test_columns_line_up_and_lines_end_without_spaces():
    rows = [("name", "images/s", "share"), ("decode", 1200, None), ("a longer name", 7)]
    assert format_table(rows) == (
        "name           images/s  share\n"
        "decode             1200      -\n"
        "a longer name         7"
    )  # fmt: skip
    assert format_table([("a", "b"), ("long", "x")], "<<") == "a     b\nlong  x"


def test_figures_within_figures_are_indented():
    figures = {"source": "digits", "speed": {"ours": 3, "other": 2.5}}
    assert format_figures(figures).splitlines() == ["source   digits", "speed", "  ours   3", "  other  2.5"]


def test_figures_are_one_line_for_programs_and_one_each_for_people(capsys):
    figures = {"speed": 1.5, "device": "cpu"}
    print_figures(figures, as_json=True)
    assert json.loads(capsys.readouterr().out) == figures
    print_figures(figures, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["speed", "1.5"], ["device", "cpu"]]
    print_figures(figures, as_json=False, format_text=lambda figures: "a table")
    assert capsys.readouterr().out == "a table\n"
