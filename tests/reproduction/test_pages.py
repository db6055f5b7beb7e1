"""Pages about exhibits: tables, charts with our points over the paper's, and the runs behind our figures."""

import json
from pathlib import Path

import pytest
from reproduction.test_standing import FOLDER, START, make_three_runs

from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.errors import UserError
from mixer_jax.pages.parts import Chart, Charts, Part, Text
from mixer_jax.reproduction.charts import charts_of
from mixer_jax.reproduction.evidence import evidence_of
from mixer_jax.reproduction.page import write_exhibit
from mixer_jax.reproduction.setup import Setup
from mixer_jax.reproduction.show import figures_of

COMMITS, DIGEST = ("0123abcd", "4567cdef"), "ab" * 32


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Return a folder with three runs of Mixer-B/16 on ImageNet, of which the first was started twice."""
    for seed, run in enumerate(make_three_runs(tmp_path)):
        starts = [START | {"git_commit": commit, "total_steps": 20_000} for commit in COMMITS[: 2 if seed == 0 else 1]]
        (run / "run.json").write_text(json.dumps({"starts": starts}))
        results = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps(results | {"params_sha256": DIGEST}))
    return tmp_path


def setup_of(workdir: Path) -> Setup:
    return Setup(workdir=str(workdir), has_runs=True)


def charts_in(parts: list[Part]) -> list[Chart]:
    return [chart for part in parts if isinstance(part, Charts) for chart in part.charts]


def rows_of(chart: Chart) -> list[dict]:
    return chart.spec["datasets"]["rows"]


def test_every_figure_of_ours_names_its_runs_their_commits_and_digests(workdir):
    (part,) = figures_of("table3", "ImageNet: Mixer-B/16*", ["imagenet", "real"], setup_of(workdir))["parts"]
    imagenet, real = part["rows"][0]["cells"]
    assert [run["run"] for run in imagenet["runs"]] == [
        str(workdir / FOLDER / f"final/optimizer.learning_rate=0.03/seed{seed}") for seed in range(3)
    ]
    assert [run["top1"] for run in imagenet["runs"]] == pytest.approx([76.4, 76.5, 76.42])
    assert [run["git_commit"] for run in imagenet["runs"]] == ["0123abcd, 4567cdef", "0123abcd", "0123abcd"]
    assert {run["params_sha256"] for run in imagenet["runs"]} == {DIGEST} and real["runs"] == []


def test_a_damaged_record_of_a_run_is_refused_with_its_name(workdir):
    file = workdir / FOLDER / "final/optimizer.learning_rate=0.03/seed1/run.json"
    file.write_text(json.dumps({"starts": [{"git_commit": 7}]}))
    with pytest.raises(UserError, match=r"seed1/run\.json is damaged"):
        figures_of("table3", "ImageNet: Mixer-B/16*", ["imagenet"], setup_of(workdir))


@pytest.mark.parametrize(("record", "results", "file"), [({"starts": 7}, {}, "run.json"), ({}, {"step": "x"}, "results.json")])
def test_a_damaged_file_of_a_run_in_a_bucket_is_named_by_its_address(record: dict, results: dict, file: str):
    with pytest.raises(UserError, match=f"^gs://bucket/run/{file} is damaged"):
        evidence_of("gs://bucket/run", 0.5, record, results)


def test_table_3_is_drawn_with_a_point_of_the_paper_for_each_row_over_cost_and_speed():
    (part,) = figures_of("table3", columns=["imagenet", "throughput", "core_days"])["parts"]
    parts = charts_of("table3", part)
    cost, speed = charts_in(parts)
    assert "core-days" in cost.title and "images/s" in speed.title
    for chart, column in ((cost, "core_days"), (speed, "throughput")):
        paper = [{cell["column"]: cell["paper"] for cell in row["cells"]} for row in part["rows"]]
        expected = sorted((cells[column], cells["imagenet"]) for cells in paper)
        assert sorted((row["x"], row["y"]) for row in rows_of(chart)) == expected and len(expected) == 26
        assert not any(row["is_filled"] or row["is_dashed"] for row in rows_of(chart))
        assert chart.spec["layer"][1]["encoding"]["x"]["scale"]["type"] == "log"
    assert "There is no point of ours yet" in parts[-1].text


def test_our_points_stand_at_our_accuracy_and_the_planners_cost(workdir):
    (part,) = figures_of("table3", "ImageNet: Mixer-*", ["imagenet", "core_days"], setup_of(workdir))["parts"]
    parts = charts_of("table3", part)
    (chart,) = charts_in(parts)
    (ours,) = [row for row in rows_of(chart) if row["is_filled"]]
    cells = {cell["column"]: cell for cell in part["rows"][0]["cells"]}
    assert ours["y"] == pytest.approx(76.44) and ours["x"] == cells["core_days"]["ours"] != cells["core_days"]["paper"]
    assert ours["note"] == "ours, deviates, 3 runs; x: estimate" and ours["color"] == "Mixer"
    assert "no point of ours" not in parts[-1].text


def test_points_that_were_read_off_the_drawing_are_marked():
    (part,) = figures_of("figure3")["parts"]
    for chart, column in zip(charts_in(charts_of("figure3", part)), ("core_days", "throughput"), strict=True):
        sources = {
            (cells[column]["paper"], cells["imagenet"]["paper"]): {cells[column]["source"], cells["imagenet"]["source"]}
            for row in part["rows"]
            for cells in [{cell["column"]: cell for cell in row["cells"]}]
        }
        for row in rows_of(chart):
            assert row["is_dashed"] == ("digitized" in sources[row["x"], row["y"]]) == ("read off a drawing" in row["note"])


def test_figure_2_has_points_on_the_left_and_curves_over_a_logarithmic_axis_on_the_right():
    left, right = figures_of("figure2")["parts"]
    (points,) = charts_in(charts_of("figure2", left))
    assert len(rows_of(points)) == 13 and {row["shape"] for row in rows_of(points)} == {row["group"] for row in left["rows"]}
    (curves,) = charts_in(charts_of("figure2", right))
    assert [entry.name for entry in curves.legend][:2] == ["Mixer-B/32", "Mixer-L/32"] and all(e.dash for e in curves.legend)
    assert curves.curves[2] == [(9e6, 35.4), (30e6, 54.6), (91e6, 69.2), (300e6, 72.0), (3e9, 73.6)]
    assert curves.spec["layer"][0]["encoding"]["x"]["scale"]["type"] == "log"


def test_figure_4_has_curves_over_steps_and_a_figure_of_ours_would_be_a_solid_one():
    (part,) = figures_of("figure4")["parts"]
    (chart,) = charts_in(charts_of("figure4", part))
    assert len(chart.legend) == 6 and chart.curves[0][:2] == [(25e3, 34.4), (100e3, 43.7)]
    assert "type" not in chart.spec["layer"][0]["encoding"]["x"]["scale"]
    part["rows"][0]["cells"][1]["ours"] = 44.0
    parts = charts_of("figure4", part)
    (chart,) = charts_in(parts)
    (ours,) = [i for i, entry in enumerate(chart.legend) if not entry.dash]
    assert chart.curves[ours] == [(100e3, 44.0)] and chart.legend[ours].color == chart.legend[0].color
    assert [part.text for part in parts if isinstance(part, Text)] == [
        "Dashed curves are the paper\u2019s, read off its drawing. Solid curves are ours."
    ]


@pytest.mark.parametrize("exhibit", ["table4", "figure5", "supplement"])
def test_what_has_no_axes_has_no_charts(exhibit):
    assert not any(charts_of(exhibit, part) for part in figures_of(exhibit)["parts"])


def test_the_page_has_a_line_for_each_cell_and_each_run(workdir):
    figures = figures_of("table3", "ImageNet*", [], setup_of(workdir))
    page = write_exhibit(figures, workdir / "page.html").read_text()
    for row in figures["parts"][0]["rows"]:
        assert row["label"] in page
        for cell in row["cells"]:
            assert all(note in page.replace("&#39;", "'") for note in (*cell["deviations"], *cell["reasons"]))
    assert page.count(DIGEST) == 3 and "0123abcd, 4567cdef" in page and page.count('<figure class="chart">') == 2
    assert "Our figure is further from" not in page, "statuses that no cell has are not explained"
    assert "TPU v3, as estimates" in page


@pytest.mark.parametrize("exhibit", ["table2", "table4", "figure2", "figure4", "figure6", "supplement"])
def test_the_command_writes_a_page_without_runs_and_replaces_it(call, exhibit, tmp_path):
    out = tmp_path / "page.html"
    for _ in range(2):
        assert call(exhibit, f"--out={out}") == (DONE, f"{out}\n", "")
    page = out.read_text()
    assert "What the words and the notes mean" in page and "Made by mixer_jax" in page


def test_a_file_that_is_no_page_is_not_replaced_and_json_is_no_page(call, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = call("table4", f"--out={tmp_path / 'notes.txt'}")
    assert code == TO_MEND and "exists" in err and (tmp_path / "notes.txt").read_text() == "mine"
    code, _, err = call("table4", "--json", f"--out={tmp_path / 'page.html'}")
    assert code == TO_MEND and "write no page" in err and not (tmp_path / "page.html").exists()
