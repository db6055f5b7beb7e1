"""Accuracy and loss over every example of a split, on the whole mesh, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.evaluation.answers import Evaluation
from mixer_jax.evaluation.classification import Classification, correct_in_top
from mixer_jax.parallel import make_mesh, to_global

EXAMPLES, CLASSES = 13, 7
RNG = np.random.default_rng(0)
# Sets of labels, padded with -1: of one, of several, and for examples 4 and 9 of none.
SETS = [RNG.choice(CLASSES, i % 3 + 1, replace=False).tolist() for i in range(EXAMPLES)]
SETS[4] = SETS[9] = []
SINGLES = [[labels[0] if labels else i % CLASSES] for i, labels in enumerate(SETS)]
LOGITS = RNG.normal(size=(EXAMPLES, CLASSES)).astype(np.float32)
LOGITS[::3] += 3 * np.eye(CLASSES, dtype=np.float32)[np.ravel(SINGLES)[::3]]  # a third are right


def padded(sets: list[list[int]], width: int) -> np.ndarray:
    return np.array([labels + [-1] * (width - len(labels)) for labels in sets], np.int32)


def in_top(logits, labels, k) -> bool:
    return bool(set(np.argsort(-logits)[:k]) & set(labels))


def evaluation(labels: np.ndarray, batch_size: int, fsdp: int = 1, answered_loss: str = "") -> Evaluation:
    """The evaluator over LOGITS in batches whose last is filled up with rubbish of mask 0. Pixels stand for the example."""
    mesh = make_mesh(fsdp)

    def batches(mesh):
        for start in range(0, EXAMPLES, batch_size):
            index = np.arange(start, start + batch_size)
            real = index < EXAMPLES
            batch = {"image": np.where(real, index, 0).astype(np.int32), "labels": labels[np.where(real, index, 0)]}
            yield to_global(batch | {"mask": real.astype(np.float32)}, mesh)

    def predict(params, images):
        return params["logits"][images], None

    def loss(logits, labels):
        return jnp.sum(logits**2, axis=1) + labels[:, 0]

    return Classification(batches, predict, loss, mesh, answered_loss=answered_loss)({"logits": LOGITS})


def evaluate(labels: np.ndarray, batch_size: int, fsdp: int = 1) -> dict:
    return evaluation(labels, batch_size, fsdp).figures


@pytest.mark.parametrize("k", [1, 2, 5, CLASSES, 20])
@pytest.mark.parametrize("sets", [SINGLES, SETS], ids=["one label", "sets"])
def test_a_prediction_is_right_where_one_of_the_k_largest_logits_is_a_label(k, sets):
    correct = correct_in_top(LOGITS, padded(sets, 3), k)
    assert (correct.shape, correct.dtype) == ((EXAMPLES,), jnp.float32)
    np.testing.assert_array_equal(correct, [in_top(x, labels, k) for x, labels in zip(LOGITS, sets, strict=True)])


@pytest.mark.parametrize(("batch_size", "fsdp"), [(8, 1), (16, 2), (8, 8)])
@pytest.mark.parametrize("sets", [SINGLES, SETS], ids=["one label", "sets"])
def test_figures_are_means_over_the_examples_that_have_a_label_each_counted_once(sets, batch_size, fsdp):
    counted = [(x, labels) for x, labels in zip(LOGITS, sets, strict=True) if labels]
    expected = {
        "top1": np.mean([in_top(x, labels, 1) for x, labels in counted]),
        "top5": np.mean([in_top(x, labels, 5) for x, labels in counted]),
        "loss": np.mean([np.sum(np.float64(x) ** 2) + labels[0] for x, labels in counted]),
    }
    assert 0 < expected["top1"] < expected["top5"] < 1
    figures = evaluate(padded(sets, 3), batch_size, fsdp)
    assert figures.pop("examples") == len(counted) == (13 if sets is SINGLES else 11)
    assert figures == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("batch_size", "fsdp"), [(8, 1), (16, 2), (8, 8)])
@pytest.mark.parametrize("sets", [SINGLES, SETS], ids=["one label", "sets"])
def test_answers_are_those_to_each_example_in_order_whether_it_has_labels_or_not(sets, batch_size, fsdp):
    figures, answers = evaluation(padded(sets, 4), batch_size, fsdp, answered_loss="sigmoid")
    assert figures == evaluate(padded(sets, 4), batch_size, fsdp)
    assert all(isinstance(x, np.ndarray) and len(x) >= EXAMPLES for x in answers)
    np.testing.assert_array_equal(answers.labels[:EXAMPLES], padded(sets, max(map(len, sets))))
    expected = np.argsort(-LOGITS, axis=1)[:, :5]
    np.testing.assert_array_equal(answers.classes[:EXAMPLES], expected)
    shares = 1 / (1 + np.exp(-np.take_along_axis(LOGITS, expected, axis=1)))
    np.testing.assert_allclose(answers.probabilities[:EXAMPLES], shares, rtol=1e-5)
    assert evaluation(padded(sets, 4), batch_size, fsdp).answers is None


@pytest.mark.parametrize("classes", [2, 5, 6])
def test_top_5_is_left_out_where_it_would_always_be_right(classes):
    mesh = make_mesh(1)
    batch = {"image": np.zeros((8, 2), np.float32), "labels": np.ones((8, 1), np.int32), "mask": np.ones(8, np.float32)}
    evaluator = Classification(
        lambda mesh: iter([to_global(batch, mesh)]),
        lambda params, images: (jnp.zeros((8, classes + 4)) + jnp.arange(classes + 4.0)[None], None),
        lambda logits, labels: logits[:, 0],
        mesh,
        range(classes),
    )
    figures = evaluator({}).figures
    assert "top1_among_present" in figures
    assert ("top5" in figures, "top5_among_present" in figures) == (classes + 4 > 5, classes > 5)


def test_accuracy_is_exact_to_the_example():
    correct = sum(in_top(x, labels, 1) for x, labels in zip(LOGITS, SINGLES, strict=True))
    assert evaluate(padded(SINGLES, 1), 8)["top1"] == correct / 13


def test_a_split_without_any_label_has_no_figures():
    assert evaluate(np.full((EXAMPLES, 2), -1, np.int32), 8) == {"examples": 0}


def test_no_more_than_two_batches_wait_for_the_device():
    sums = []

    def batches(mesh):
        for _ in range(6):
            assert all(x.is_ready() for x in jax.tree.leaves(sums[:-1]))
            images, labels = np.ones((8, 300, 300), np.float32), np.zeros((8, 1), np.int32)
            yield to_global({"image": images, "labels": labels, "mask": np.ones(8, np.float32)}, mesh)

    def slow(params, images):
        return jax.lax.fori_loop(0, 20, lambda _, x: jnp.tanh(x @ x), images)[:, 0], None

    evaluator = Classification(batches, slow, lambda logits, labels: logits[:, 0], make_mesh(1))
    compute = evaluator._compute
    evaluator._compute = lambda params, batch: sums.append(compute(params, batch)) or sums[-1]
    assert evaluator({}).figures["examples"] == 48
