import json
import math
import re

from mixer_jax.report import sections
from mixer_jax.report.runs import read_run


def test_a_run_shows_its_facts_curves_and_time(run_folder):
    html = sections.run_section(read_run(run_folder), "Why it was made.")
    assert all(text in html for text in ("Why it was made.", "40 of 40", "12\u202f345", "125 images/s", "1 \u00d7 cpu"))
    assert html.count('class="chart"') == 3 and html.count("<rect") == 4


def test_top1_is_in_percent_and_losses_are_as_logged(run_folder):
    html = sections.run_section(read_run(run_folder))
    assert re.findall(r"</i>test <b>(.*?)</b>", html) == ["1.2", "60"]


def test_an_evaluator_has_one_color_in_every_chart(run_folder):
    html = sections.run_section(read_run(run_folder))
    assert set(re.findall(r'<i class="(s\d)"></i>test ', html)) == {"s1"}


def test_a_run_without_a_logged_step_says_so(tmp_path, write_run):
    write_run(tmp_path / "run", metrics=[])
    assert "No step has been logged" in sections.run_section(read_run(tmp_path / "run"))


def test_a_diverged_run_is_drawn(tmp_path, write_run):
    rows = [{"step": s, "loss": loss, "learning_rate": 1.0} for s, loss in ((1, 2.0), (2, 1e30), (3, math.nan))]
    write_run(tmp_path / "run", metrics=rows)
    assert "not finite" in sections.run_section(read_run(tmp_path / "run"))


def test_without_a_checkpoint_pictures_that_need_one_say_so(run_folder):
    run = read_run(run_folder)
    for make in (sections.predictions_section, sections.units_section):
        assert "Not shown: " in make(run) and "<img" not in make(run)
    assert sections.training_images_section(run).count("<img") == 16


def test_data_that_have_moved_are_named(tmp_path, write_run):
    write_run(tmp_path / "run", data__source="folder:/gone/<b>")
    html = sections.training_images_section(read_run(tmp_path / "run"))
    assert "Not shown: config.data: There is no folder /gone/&lt;b&gt;" in html


def test_predictions_count_the_wrong_ones_they_mark(whole_run):
    html = sections.predictions_section(read_run(whole_run))
    claimed = int(re.search(r"marked \u2717: (\d+)", html)[1])
    assert html.count("<img") == sections.IMAGES + sections.MISTAKES
    assert html.count('class="wrong"') == claimed + sections.MISTAKES


def test_units_are_all_shown(whole_run):
    html = sections.units_section(read_run(whole_run))
    assert html.count("<img") == 6 and "4 by 4" in html


def test_records_list_what_differs_and_escape_what_files_say(tmp_path, write_run):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=7, init_from="<script>")
    start = json.loads((tmp_path / "b" / "run.json").read_text())["starts"][0]
    (tmp_path / "b" / "run.json").write_text(json.dumps({"starts": [start | {"command": "<script>", "host": "<script>"}]}))
    html = sections.records_section([read_run(tmp_path / "a"), read_run(tmp_path / "b", "<script>")])
    assert "<script" not in html
    assert "options that differ from a: 2" in html and "<td>seed</td>" in html
