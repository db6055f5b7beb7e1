"""Evaluators write the predictions for each example once, in the order of the records, with the model's classes."""

import json
import re
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

import evaluate
from mixer_jax.checkpoints.weights import load_weights, save_weights
from mixer_jax.classes import Names
from mixer_jax.config import classification, dataset
from mixer_jax.data.sources.digits import DigitsSource
from mixer_jax.endings import DONE
from mixer_jax.errors import UserError
from mixer_jax.evaluation.answers import Answers, join_answers, most_likely
from mixer_jax.evaluation.evaluators import (
    answers_writer,
    describe_evaluators,
    make_evaluators,
    open_examples,
    run_evaluators,
)
from mixer_jax.evaluation.example_predictions import ExamplePredictions, accuracy_by_class, confusion_matrix, read_predictions
from mixer_jax.parallel import make_mesh
from mixer_jax.records import predictions_file
from mixer_jax.workdir import Workdir


def results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def of_training(tiny_run: Path) -> ExamplePredictions:
    """The predictions that a run wrote, in batches of 16, so that the last batch has 7 of them."""
    return read_predictions(tiny_run / "predictions/test.parquet")


def test_a_run_leaves_the_predictions_behind_its_figures(tiny_run: Path, of_training: ExamplePredictions):
    final, source = results(tiny_run), DigitsSource("test")
    assert final["predictions"] == {"test": "predictions/test.parquet"}
    assert [file.name for file in (tiny_run / "predictions").iterdir()] == ["test.parquet"]  # and none of few-shot
    assert (of_training.step, of_training.params_sha256) == (final["step"], final["params_sha256"])
    assert of_training.data == final["evaluators"]["test"]["data"]
    assert of_training.class_names == source.class_names
    assert of_training.records.tolist() == list(range(359)) and of_training.keys[358] == "358"
    assert [tuple(labels) for labels in of_training.labels.tolist()] == [source.labels(index) for index in range(359)]
    right = of_training.classes == of_training.labels
    assert right[:, 0].mean() == pytest.approx(final["evals"]["test"]["top1"])
    assert right.any(axis=1).mean() == pytest.approx(final["evals"]["test"]["top5"])
    examples, right_by_class = accuracy_by_class(of_training)
    assert right_by_class.sum() / examples.sum() == pytest.approx(final["evals"]["test"]["top1"])
    assert np.trace(confusion_matrix(of_training)) == right_by_class.sum()
    assert (np.diff(of_training.probabilities) <= 0).all() and (of_training.probabilities.sum(axis=1) <= 1.0001).all()


def test_the_lines_in_the_docs_list_the_mistakes(tiny_run: Path, of_training: ExamplePredictions):
    lines = re.search(r"```python\n(import json, pyarrow.*?)```", (ROOT / "docs/training.md").read_text(), re.DOTALL)[1]
    assert "runs/b16" in lines
    exec(lines.replace("runs/b16", str(tiny_run)), found := {})
    wrong = of_training.classes[:, 0] != of_training.labels[:, 0]
    assert found["wrong"] == [(str(record), str(of_training.classes[record, 0])) for record in np.flatnonzero(wrong)]


@pytest.mark.parametrize(("batch_size", "loss"), [(8, "softmax"), (40, "sigmoid"), (400, "softmax")])
def test_an_evaluation_in_other_batches_writes_the_same(
    tiny_run: Path, of_training: ExamplePredictions, tmp_path: Path, tiny_config, batch_size: int, loss: str
):
    tiny_config.evals.test.batch_size, tiny_config.loss.kind = batch_size, loss
    del tiny_config.evals["fewshot"]
    assert evaluate.evaluate(tiny_config, str(tiny_run), str(tmp_path)) == DONE
    found = read_predictions(tmp_path / "predictions/test.parquet")
    assert (found.step, found.params_sha256, found.data) == (of_training.step, of_training.params_sha256, of_training.data)
    assert found.keys == of_training.keys
    for name in ("records", "labels", "classes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(of_training, name))
    if loss == "softmax":
        np.testing.assert_allclose(found.probabilities, of_training.probabilities, rtol=1e-4)
    else:
        odds = found.probabilities / (1 - found.probabilities) / of_training.probabilities
        np.testing.assert_allclose(odds, np.broadcast_to(odds[:, :1], odds.shape), rtol=1e-3)


def test_a_larger_set_writes_none_and_an_older_file_says_of_which_parameters_it_is(tiny_run: Path, tmp_path: Path, tiny_config):
    del tiny_config.evals["fewshot"]
    weights, digests = load_weights(str(tiny_run)), []
    for limit, files in ((359, {"test": "predictions/test.parquet"}), (358, {})):
        weights.arrays["head/bias"] = weights.arrays["head/bias"] + 1
        save_weights(weights, str(tmp_path / f"{limit}.safetensors"))
        tiny_config.evals.test.max_predictions = limit
        assert evaluate.evaluate(tiny_config, str(tmp_path / f"{limit}.safetensors"), str(tmp_path / "out")) == DONE
        assert results(tmp_path / "out")["predictions"] == files
        digests.append(results(tmp_path / "out")["params_sha256"])
    assert digests[0] != digests[1]
    assert read_predictions(tmp_path / "out/predictions/test.parquet").params_sha256 == digests[0]


def test_the_option_changes_neither_figures_nor_what_describes_them(tiny_config):
    examples = open_examples(tiny_config, tuple("0123456789"), "x")
    described = describe_evaluators(tiny_config, examples)
    tiny_config.evals.test.max_predictions = 0
    assert describe_evaluators(tiny_config, examples) == described and "max_predictions" not in described["test"]


def written_for(folder: Path, class_names: Names, workdir: Path, tiny_config) -> ExamplePredictions:
    """The predictions for images of a folder by a model that sees shades of gray, of which class i has 60 i."""
    tiny_config.evals = {"dev": classification(dataset(f"folder:{folder}", ""), resize_size=8)}
    examples, mesh = open_examples(tiny_config, class_names, "the model"), make_mesh(1)

    def predict(params, images):
        shades = jnp.mean(images.astype(jnp.float32), axis=(1, 2, 3))
        return -jnp.abs(shades[:, None] - params["shades"][None]), None

    evaluators = make_evaluators(tiny_config.evals, examples, predict, lambda logits, labels: logits[:, 0], "softmax", mesh)
    save = answers_writer(workdir, examples, describe_evaluators(tiny_config, examples))
    params = {"shades": np.arange(len(class_names), dtype=np.float32) * 60}
    written = run_evaluators(evaluators, params, 7, save)
    assert written["evals"]["dev"]["top1"] == 1 and written["predictions"] == {"dev": "predictions/dev.parquet"}
    return read_predictions(predictions_file(workdir, "dev"))


@pytest.mark.parametrize(
    ("class_names", "numbers", "names"),
    [
        (("cat", "dog", "elk"), [1, 1, 2, 2], ("cat", "dog", "elk")),
        (("elk", "cat", "dog"), [2, 2, 0, 0], ("elk", "cat", "dog")),
        (("0", "1"), [0, 0, 1, 1], ("dog", "elk")),  # the model does not name its classes, the data do
    ],
)
def test_classes_have_the_models_numbers_and_records_the_names_of_their_files(
    class_names, numbers, names, tmp_path: Path, tiny_config
):
    for name, number in zip(["dog", "dog", "elk", "elk"], numbers, strict=True):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{len(list(folder.iterdir()))}.png"
        cv2.imwrite(str(file), np.full((9, 9, 3), 60 * number, np.uint8))
    (tmp_path / "run").mkdir()
    found = written_for(tmp_path / "data", class_names, tmp_path / "run", tiny_config)
    assert found.class_names == names and found.keys == ["dog/0.png", "dog/1.png", "elk/0.png", "elk/1.png"]
    assert found.labels.tolist() == [[number] for number in numbers] and found.classes[:, 0].tolist() == numbers


def test_a_link_in_the_place_of_the_folder_is_refused_at_the_start(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/predictions").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="predictions is a link to"):
        Workdir(str(tmp_path / "run"))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_most_likely_classes_are_told_apart_where_their_probabilities_are_not(loss: str):
    logits = np.array([[20, 30, -5, 25], [-200, -300, -100, -400]], np.float32)
    probabilities, classes = most_likely(logits, loss, 3)
    assert classes.tolist() == [[1, 3, 0], [2, 0, 1]]
    exact = 1 / (1 + np.exp(-np.float64(logits)))
    if loss == "softmax":
        exact = np.exp(np.float64(logits) - logits.max(axis=1, keepdims=True))
        exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, np.take_along_axis(exact, np.array(classes), axis=1), rtol=1e-6, atol=1e-37)


def test_batches_whose_examples_have_other_numbers_of_labels_are_joined():
    arrays = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int32)
    batches = [
        np.array(labels, np.int32) for labels in ([[1, -1, -1, -1], [-1] * 4], [[-1] * 4] * 2, [[0, 2, 5, -1], [3] + [-1] * 3])
    ]
    small = [Answers(labels, *arrays).without_padding() for labels in batches]
    assert [answers.labels.shape[1] for answers in small] == [1, 0, 3]
    joined = join_answers(small)
    np.testing.assert_array_equal(joined.labels, np.concatenate(batches)[:, :3])
    assert joined.classes.shape == joined.probabilities.shape == (6, 3) and joined.classes.dtype == np.int32
