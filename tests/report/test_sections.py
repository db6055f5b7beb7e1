import math

import pytest

from mixer_jax.pages.parts import Bars, Chart, Charts, Facts, Folded, Pairs, Section, Sheet, Table, Text
from mixer_jax.report import sections
from mixer_jax.report.runs import read_run


def parts_of(section: Section, kind: type) -> list:
    """Return the parts of a section that are of a class."""
    return [part for part in section.parts if isinstance(part, kind)]


def charts_of(section: Section) -> dict[str, Chart]:
    return {chart.title: chart for part in parts_of(section, Charts) for chart in part.charts}


def texts_of(section: Section) -> str:
    return "\n".join(part.text for part in parts_of(section, Text))


def test_a_run_shows_its_facts_curves_and_time(run_folder):
    section = sections.run_section(read_run(run_folder))
    ((facts,),) = parts_of(section, Facts)
    assert [*facts.values()] == ["digits, train", "40 of 40", "16 images", "125 images/s", "12\u202f345", "1 \u00d7 cpu"]
    assert [*charts_of(section)] == ["Loss", "Evaluation top-1, %", "Learning rate", "Images/s"]
    (time,) = parts_of(section, Bars)
    assert [[share for _, share, _ in bar.parts] for bar in time.bars] == [[10.0, 20.0, 40.0, 30.0]]


def test_top1_is_in_percent_and_losses_are_as_logged(run_folder):
    charts = charts_of(sections.run_section(read_run(run_folder)))
    assert [(entry.name, entry.value) for entry in charts["Evaluation top-1, %"].legend] == [("test", "60")]
    assert [(entry.name, entry.value) for entry in charts["Loss"].legend] == [("training", "0.1"), ("test", "1.2")]


def test_an_evaluator_has_one_color_in_every_chart(run_folder):
    charts = charts_of(sections.run_section(read_run(run_folder))).values()
    assert {entry.color for chart in charts for entry in chart.legend if entry.name == "test"} == {1}


def test_a_run_without_a_logged_step_says_so(tmp_path, write_run):
    write_run(tmp_path / "run", metrics=[])
    assert "No step has been logged" in texts_of(sections.run_section(read_run(tmp_path / "run")))


def test_a_diverged_run_is_drawn(tmp_path, write_run):
    rows = [{"step": s, "loss": loss, "learning_rate": 1.0} for s, loss in ((1, 2.0), (2, 1e30), (3, math.nan))]
    write_run(tmp_path / "run", metrics=rows)
    loss = charts_of(sections.run_section(read_run(tmp_path / "run")))["Loss"]
    assert (loss.legend[0].value, loss.curves) == ("not finite", [[(1, 2.0), (2, 1e30), (3, None)]])


def test_without_a_checkpoint_pictures_that_need_one_say_so(run_folder):
    run = read_run(run_folder)
    section = sections.units_section(run)
    assert "Not shown: " in texts_of(section) and not parts_of(section, Pairs)
    ((sheet,),) = (parts_of(section, Sheet) for section in sections.training_images_sections([run]))
    assert len(sheet.pictures) == 16


def test_data_that_have_moved_are_named(tmp_path, write_run):
    write_run(tmp_path / "run", data__source="folder:/gone")
    (section,) = sections.training_images_sections([read_run(tmp_path / "run")])
    assert "Not shown: config.data: There is no folder /gone" in texts_of(section)


def test_equal_training_images_are_shown_once(tmp_path, write_run):
    for name, seed in (("a", 0), ("b", 7), ("c", 0)):
        write_run(tmp_path / name, seed=seed)
    found = sections.training_images_sections([read_run(tmp_path / name) for name in "abc"])
    assert [section.title for section in found] == ["What the model sees: a, c", "What the model sees: b"]


def test_units_are_all_shown(whole_run):
    section = sections.units_section(read_run(whole_run))
    (pairs,) = parts_of(section, Pairs)
    assert [len(group) for group in pairs.groups] == [2, 2, 2] and "4 by 4" in texts_of(section)


def test_records_list_what_differs(tmp_path, write_run):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=7, init_from="there")
    runs = [read_run(tmp_path / name) for name in "ab"]
    first, second = parts_of(sections.records_section(runs), Folded)
    assert (first.note, second.note) == ("the first run", "options that differ from a: 2")
    assert [part.rows for part in second.parts if isinstance(part, Table)] == [
        [("init_from", "''", "'there'"), ("seed", "0", "7")]
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_the_curves_of_several_runs_share_a_chart_for_each_quantity(tmp_path, write_run, count):
    for i in range(count):
        write_run(tmp_path / f"run{i}")
    charts = {chart.title: chart for chart in sections.curves([read_run(tmp_path / f"run{i}") for i in range(count)])[0].charts}
    assert [len(chart.legend) for chart in charts.values()] == [2 * count, count, count, count]
    if count > 1:
        loss = charts["Loss"].legend
        assert [entry.name for entry in loss[:3]] == ["run0, training", "run0, test", "run1, training"]
        assert [(entry.color, bool(entry.dash)) for entry in loss[:3]] == [(0, False), (0, True), (1, False)]
        assert [entry.name for entry in charts["Learning rate"].legend] == ["run0", "run1", "run2"]
