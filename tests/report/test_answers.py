import base64

import cv2
import numpy as np
import pytest

from mixer_jax.data.images.resize import resize
from mixer_jax.data.sources.registry import open_source
from mixer_jax.evaluation.evaluators import describe_evaluators, open_examples
from mixer_jax.evaluation.example_predictions import ExamplePredictions, write_predictions
from mixer_jax.pages.parts import Charts, Sheet, Table, Text
from mixer_jax.records import predictions_file
from mixer_jax.report import answers
from mixer_jax.report.runs import read_run

ANSWER = 3


def write_answers(run, **changes):
    """Write the predictions of a model that always answers ANSWER, with `changes` of their fields."""
    examples = open_examples(run.config, tuple(map(str, range(10))), "test")
    source = examples["test"]["data"].source
    count = len(source)
    labels = np.array([source.labels(i) for i in range(count)], np.int32)
    predictions = ExamplePredictions(
        40, "0" * 64, describe_evaluators(run.config, examples)["test"]["data"], source.class_names,
        np.arange(count), [f"image {i}" for i in range(count)], labels, np.tile(np.int32([ANSWER, 9, 8, 7, 6]), (count, 1)),
        np.full((count, 5), 0.1, np.float32),
    )._replace(**changes)  # fmt: skip
    file = predictions_file(run.workdir, "test")
    file.parent.mkdir()
    write_predictions(file, predictions)
    return predictions


def sections_of(run, *, pictures=True):
    sections = answers.answers_sections([run], pictures=pictures)
    return [part for section in sections for part in section.parts]


def texts_of(parts):
    return "\n".join(part.text for part in parts if isinstance(part, Text))


def sheets_of(parts):
    return [part.pictures for part in parts if isinstance(part, Sheet)]


def charts_of(parts):
    return {chart.title: chart for part in parts if isinstance(part, Charts) for chart in part.charts}


@pytest.fixture
def run(run_folder):
    return read_run(run_folder)


def test_a_run_without_predictions_says_what_writes_them(run):
    (part,) = sections_of(run)
    assert part.is_missing and "If a finished run lacks them, type its command again" in part.text


def test_runs_without_predictions_share_a_section(run):
    (section,) = answers.answers_sections([run, run._replace(label="other")], pictures=True)
    assert section.title == "What it answers: run, other"


def test_accuracy_and_confusions_need_no_data(run, monkeypatch):
    predictions = write_answers(run)
    monkeypatch.setattr(answers, "open_examples", None)
    parts = sections_of(run, pictures=False)
    right = int((predictions.labels[:, 0] == ANSWER).sum())
    assert f"step 40 classify {right} of the 359 examples of \u201ctest\u201d right" in texts_of(parts)
    assert "Not shown: images. With --pictures, those of digits, test are opened" in texts_of(parts)
    charts = charts_of(parts)
    accuracy = {row["name"]: row["accuracy"] for row in charts["Accuracy by class"].spec["datasets"]["rows"]}
    assert accuracy == {str(label): 100.0 * (label == ANSWER) for label in range(10)}
    cells = charts["Confusion matrix"].spec["datasets"]["rows"]
    assert {(cell["true"], cell["predicted"]) for cell in cells} == {(str(label), str(ANSWER)) for label in range(10)}


def test_the_sample_is_marked_and_the_most_confident_mistakes_come_first(run):
    source = open_source(run.config.evals.test.data)
    probabilities = np.linspace(0.9, 0.1, len(source)).astype(np.float32)
    predictions = write_answers(run, probabilities=probabilities[:, None] / np.float32([1, 100, 100, 100, 100]))
    sample, mistakes = sheets_of(sections_of(run))
    assert (len(sample), len(mistakes)) == (answers.IMAGES, answers.MISTAKES)
    for picture in sample:
        assert picture.caption[0] == str(ANSWER) and picture.is_wrong == (len(picture.caption) > 1)
    first = int(np.flatnonzero(predictions.labels[:, 0] != ANSWER)[0])
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(mistakes[0].uri.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_allclose(pixels, resize(source[first].image, 8, 8), atol=40)  # the evaluator resizes with another filter
    assert mistakes[0].caption == (str(ANSWER), f"is {source.labels(first)[0]}", f"{probabilities[first]:.0%}")
    assert {picture.is_wrong for picture in sample} == {True, False} and all(picture.is_wrong for picture in mistakes)


def test_pictures_of_data_that_have_changed_are_not_shown_and_the_rest_is(run):
    write_answers(run, data="split 'test', 3 records (of another time)")
    parts = sections_of(run)
    assert "the data are others than those that were evaluated: split 'test', 3 records (of another time) then" in texts_of(parts)
    assert not sheets_of(parts) and len(charts_of(parts)) == 2


def test_of_many_classes_the_worst_are_charted_and_the_most_confused_listed(run):
    names = tuple(f"class {i}" for i in range(1000))
    labels = np.repeat(np.arange(100, 140, dtype=np.int32), 10)[:, None]
    classes = np.tile(np.arange(5, dtype=np.int32), (400, 1))
    classes[:, 0] = np.where(np.arange(400) % 10 < 8, labels[:, 0], 999)
    classes[:10, 0] = 7  # all examples of class 100
    write_answers(
        run, class_names=names, labels=labels, classes=classes, records=np.arange(400), keys=[""] * 400,
        probabilities=np.ones((400, 5), np.float32),
    )  # fmt: skip
    parts = sections_of(run, pictures=False)
    lowest, every = charts_of(parts).values()
    assert lowest.title == "Accuracy by class: the lowest 25 of 40"
    assert [row["name"] for row in lowest.spec["datasets"]["rows"]][:2] == ["class 100", "class 101"]
    assert sorted(row["value"] for row in every.spec["datasets"]["rows"]) == [0.0] + [80.0] * 39
    (table,) = (part for part in parts if isinstance(part, Table))
    assert table.rows[0] == ("class 100", "class 7", "10", "100 %") and len(table.rows) == answers.CONFUSIONS


def test_a_damaged_file_is_named_in_its_section(run):
    write_answers(run)
    predictions_file(run.workdir, "test").write_bytes(b"PAR1")
    assert "Not shown: " in texts_of(sections_of(run)) and "test.parquet" in texts_of(sections_of(run))


def test_examples_without_labels_are_no_mistakes(run):
    predictions = write_answers(run)
    labels = predictions.labels.copy()
    labels[::2] = -1
    predictions_file(run.workdir, "test").unlink()
    write_predictions(predictions_file(run.workdir, "test"), predictions._replace(labels=labels))
    assert "of the 179 examples" in texts_of(sections_of(run, pictures=False))
