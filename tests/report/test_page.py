import json
import re

import pytest

from mixer_jax.errors import UserError
from mixer_jax.report.page import MAX_OPTIONS, report_runs, results_table
from mixer_jax.report.runs import read_run


def test_a_page_is_one_file_that_refers_to_nothing_outside(whole_run, tmp_path):
    report_runs([whole_run], tmp_path / "page.html", pictures=True)
    page = (tmp_path / "page.html").read_text()
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # tests/pages has the laws of these scripts
    assert own.count("<img") == 16 + 6
    assert not re.search(r"https?://|<link|@import|url\(|srcset", own)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="(.*?)"', own))


def test_a_run_of_a_million_steps_makes_a_page_of_less_than_two_megabytes(tmp_path, write_run):
    rows = [
        {"step": 50 * i, "loss": 1 + 1 / i, "learning_rate": 1 / i, "grad_norm": i % 7, "images_per_sec": 99.9}
        for i in range(1, 20_001)
    ]
    write_run(tmp_path / "run", metrics=rows)
    page = report_runs([tmp_path / "run"], pictures=False)
    assert page.stat().st_size < 2_000_000


def test_a_page_lies_with_its_runs_and_replaces_a_page_alone(tmp_path, write_run):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        write_run(folder)
    for runs, place in ((folders[:1], "a"), (folders, "")):
        for _ in range(2):
            assert report_runs(runs, pictures=False) == tmp_path / place / "report.html"
    (tmp_path / "thesis.html").write_text("<p>mine</p>")
    with pytest.raises(UserError, match=r"thesis\.html exists, and no report made it"):
        report_runs(folders, tmp_path / "thesis.html", pictures=False)


def test_results_have_a_row_a_run_columns_of_the_options_that_differ_and_a_dash_for_what_it_was_not_tested_on(
    tmp_path, write_run
):
    for name, changes in {"a": {}, "b": {"seed": 1}, "c": {"seed": 2, "optimizer__learning_rate": 0.5}}.items():
        write_run(tmp_path / name, **changes)
    results = {"step": 20, "evals": {"few": {"top1_5shot": 0.25, "top1_5shot_seeds": [0.2, 0.3]}}}
    (tmp_path / "b" / "results.json").write_text(json.dumps(results))
    table = results_table([read_run(tmp_path / name) for name in "abc"])
    assert [list(table.header), *table.rows] == [
        ["run", "optimizer.learning_rate", "seed", "step", "test %", "few, 5-shot %"],
        ["a", "0.001", "0", "40", "60.0", "\u2013"],
        ["b", "0.001", "1", "40", "\u2013", "25.0"],
        ["c", "0.5", "2", "40", "60.0", "\u2013"],
    ]
    report_runs([tmp_path / name for name in "abc"], tmp_path / "page.html", pictures=True)
    assert "3 runs of mixer_jax, 2 finished." in (tmp_path / "page.html").read_text()


def test_a_table_of_results_has_a_bound_on_its_options_and_says_how_many_are_left_out(tmp_path, write_run):
    for name in "ab":
        write_run(tmp_path / name)
    first, second = (read_run(tmp_path / name) for name in "ab")
    second.config.unlock().update({f"option_{i:02d}": i for i in range(MAX_OPTIONS + 3)})
    table = results_table([first, second])
    assert len(table.header) == 3 + MAX_OPTIONS and table.notes[-1].startswith("3 more options differ")


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path, write_run):
    write_run(tmp_path / "a" / "run")
    write_run(tmp_path / "b" / "run")
    report_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"], tmp_path / "page.html", pictures=True)
    page = (tmp_path / "page.html").read_text()
    assert f"<h2>{tmp_path}/a/run</h2>" in page and f"<h2>{tmp_path}/b/run</h2>" in page


def test_a_page_needs_a_run(tmp_path):
    with pytest.raises(UserError, match="at least one"):
        report_runs([], tmp_path / "page.html", pictures=True)
    with pytest.raises(UserError, match="holds no run"):
        report_runs([tmp_path], tmp_path / "page.html", pictures=True)


def test_without_being_asked_a_page_opens_nothing_that_a_config_names(tmp_path, whole_run, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("opened")

    monkeypatch.setattr("mixer_jax.report.samples.open_source", refuse)
    monkeypatch.setattr("mixer_jax.report.answers.open_examples", refuse)
    report_runs([whole_run], tmp_path / "page.html", pictures=False)
    page = (tmp_path / "page.html").read_text()
    assert (
        "Not shown: images. With --pictures, the training data are opened, as the configs say: digits, train." in page
        and "opened</p>" not in page
    )


HOSTILE = [None, -1, 10**400, float("nan"), "\ud800", [[]], {"": {"": ""}}]


def changed(content, change):
    """Yield copies of `content` in which one value, at any depth, is replaced by `change` or, in a dict, removed."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        copy = content.copy()
        copy[key] = change
        yield copy
        if isinstance(content, dict):
            yield {name: other for name, other in content.items() if name != key}
        if isinstance(value, dict | list) and value:
            for inner in changed(value, change):
                yield content.copy() | {key: inner} if isinstance(content, dict) else [*content[:key], inner, *content[key + 1 :]]


@pytest.mark.parametrize("file", ["config.json", "run.json", "results.json", "metrics.jsonl"])
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_folder_with_any_value_changed_is_refused_in_words_or_makes_a_page(tmp_path, write_run, file, value):
    write_run(tmp_path / "run")
    path = tmp_path / "run" / file
    text = path.read_text()
    content = [json.loads(line) for line in text.splitlines()] if file == "metrics.jsonl" else json.loads(text)
    pages = 0
    for hostile in changed(content, value):
        if file == "metrics.jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in hostile))
        else:
            path.write_text(json.dumps(hostile))
        try:
            report_runs([tmp_path / "run"], tmp_path / "page.html", pictures=False)
            pages += 1
        except UserError as error:
            assert file in str(error)
    assert pages or file == "run.json"
