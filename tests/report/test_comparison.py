"""The section that compares runs with the first one."""

import numpy as np
import pytest

from mixer_jax.evaluation.evaluators import describe_evaluators, open_examples
from mixer_jax.evaluation.example_predictions import ExamplePredictions, write_predictions
from mixer_jax.pages.parts import Folded, Sheet, Table, Text
from mixer_jax.records import predictions_file
from mixer_jax.report.comparison import PICTURES, ROWS, comparison_sections
from mixer_jax.report.runs import Run, read_run

NUM_RIGHT = {"first": 300, "better": 320, "same": 300}  # {run: how many of the first digits it has right}


def write_answers(run: Run, num_right: int, **changes) -> None:
    """Write predictions of which the first `num_right` are right, and the later the surer."""
    examples = open_examples(run.config, tuple(map(str, range(10))), "test")
    source = examples["test"]["data"].source
    count = len(source)
    labels = np.array([source.labels(index) for index in range(count)], np.int32)
    classes = (labels + np.arange(5)) % 10
    classes[num_right:] = (classes[num_right:] + 1) % 10
    shares = np.linspace(0.1, 0.9, count, dtype=np.float32)[:, None] / np.float32([1, 100, 100, 100, 100])
    predictions = ExamplePredictions(
        40, "0" * 64, describe_evaluators(run.config, examples)["test"]["data"], source.class_names, np.arange(count),
        [str(index) for index in range(count)], labels, classes.astype(np.int32), shares,
    )._replace(**changes)  # fmt: skip
    file = predictions_file(run.workdir, "test")
    file.parent.mkdir(exist_ok=True)
    write_predictions(file, predictions)


@pytest.fixture
def runs(tmp_path, write_run) -> list[Run]:
    for name, num_right in NUM_RIGHT.items():
        write_run(tmp_path / name)
        write_answers(read_run(tmp_path / name), num_right)
    return [read_run(tmp_path / name) for name in NUM_RIGHT]


def parts_of(runs: list[Run], kind: type, *, pictures: bool = False) -> list:
    (section,) = comparison_sections(runs, pictures=pictures)
    parts = [inner for part in section.parts for inner in (part.parts if isinstance(part, Folded) else [part])]
    return [part for part in parts if isinstance(part, kind)]


def test_one_run_or_runs_without_predictions_have_no_such_section(runs, tmp_path, write_run):
    write_run(tmp_path / "none")
    assert comparison_sections(runs[:1], pictures=False) == []
    assert comparison_sections([runs[0], read_run(tmp_path / "none")], pictures=False) == []
    assert comparison_sections([read_run(tmp_path / "none"), *runs], pictures=False) == []


def test_two_runs_are_compared_and_what_changed_is_listed(runs):
    (section,) = comparison_sections(runs[:2], pictures=False)
    assert section.title == "Is better better than first?"
    figures, changed = parts_of(runs[:2], Table)
    # 2 * 0.5^20 for 20 examples that only one has right
    assert figures.rows[0][:4] + figures.rows[0][6:] == ["better", "test", "83.57 %", "89.14 %", "1.9e\u221206", "0", "20"]
    assert figures.rows[0][4] == "+5.57" and figures.rows[0][5].count("+") == 2
    assert [row[0] for row in changed.rows] == [str(index) for index in range(319, 319 - ROWS, -1)]  # the surest first
    texts = [part.text for part in parts_of(runs[:2], Text)]
    assert "test: better is better than first, at the level 0.05." in texts
    assert "Only better is right: 20 examples. The 10 with the most confident wrong answers:" in texts
    assert not parts_of(runs[:2], Sheet)


def test_of_more_runs_each_is_compared_with_the_first(runs):
    (section,) = comparison_sections(runs, pictures=False)
    assert section.title == "Which are better than first?"
    figures, _ = parts_of(runs, Table)
    assert [row[0] for row in figures.rows] == ["better", "same"] and figures.rows[1][4:7] == ["0.00", "0.00 to 0.00", "1"]
    assert [part.note for part in section.parts if isinstance(part, Folded)] == ["20 examples changed", "0 examples changed"]


def test_with_pictures_the_examples_that_changed_are_shown_with_the_wrong_answers(runs):
    (sheet,) = parts_of(runs[:2], Sheet, pictures=True)
    (_, changed) = parts_of(runs[:2], Table)
    assert len(sheet.pictures) == PICTURES and all(picture.is_wrong for picture in sheet.pictures)
    for picture, (_, truth, wrong, *_) in zip(sheet.pictures, changed.rows, strict=False):
        assert picture.caption[:2] == (wrong, f"is {truth}")


def test_runs_that_cannot_be_compared_say_why_and_cost_nothing_else(runs):
    write_answers(runs[1], 320, data="split 'test', 3 records (of another time)")
    (missing, *_) = (part.text for part in parts_of(runs, Text) if part.is_missing)
    assert missing.startswith("Not shown: better. The predictions of \u201ctest\u201d cannot be compared. They are of different")
    (figures,) = parts_of(runs, Table)
    assert [row[0] for row in figures.rows] == ["same"]
    predictions_file(runs[2].workdir, "test").write_bytes(b"PAR1")
    assert len([part for part in parts_of(runs, Text) if part.is_missing]) == 2 and not parts_of(runs, Table)
