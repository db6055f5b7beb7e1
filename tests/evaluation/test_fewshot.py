"""Few-shot accuracy: which records are the shots, the ridge against its normal equations, and a problem that has an answer."""

import functools
import itertools

import jax
import numpy as np
import pytest

from mixer_jax.config import dataset, fewshot
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError
from mixer_jax.evaluation import fewshot as fewshot_module
from mixer_jax.evaluation.evaluators import describe_evaluators, make_evaluators, open_examples
from mixer_jax.evaluation.fewshot import (
    STRENGTHS,
    FewShot,
    check_shots,
    choose_shots,
    first_labels,
    ridge_accuracies,
    ridge_predict,
)
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.models.registry import host_transform, make_model
from mixer_jax.parallel import make_mesh, to_global
from mixer_jax.training.state import init_params
from mixer_jax.validation import validate

LABELS = np.repeat([3, 0, 7, 4], [30, 10, 20, 4])[np.random.default_rng(0).permutation(64)]


@pytest.mark.parametrize("shots", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_as_many_of_each_class_are_chosen_as_asked(shots, seed):
    chosen = choose_shots(LABELS, shots, seed)
    assert len(set(chosen)) == len(chosen)
    classes, counts = np.unique(LABELS[chosen], return_counts=True)
    assert dict(zip(classes, counts, strict=True)) == dict.fromkeys((0, 3, 4, 7), shots)


def test_the_shots_of_a_seed_are_nested_and_those_of_another_seed_are_others():
    sets = [set(choose_shots(LABELS, shots, 0)) for shots in (1, 5, 10, 25)]
    assert all(a < b for a, b in itertools.pairwise(sets))
    assert set(choose_shots(LABELS, 5, 0)) == sets[1]
    assert set(choose_shots(LABELS, 5, 1)) != sets[1]


def by_normal_equations(features, labels, test_features, l2):
    """(X'X + l2 I) W = X'T, with standardised features and a constant one of 100; T is 1 for the class and -1 for others."""
    scale = features.std(0) + 1e-5

    def prepare(x):
        return np.hstack([(x - features.mean(0)) / scale, np.full((len(x), 1), 100.0)])

    x, classes = prepare(features), np.unique(labels)
    targets = np.where(labels[:, None] == classes[None], 1.0, -1.0)
    weights = np.linalg.inv(x.T @ x + l2 * np.eye(x.shape[1])) @ x.T @ targets
    return classes[(prepare(test_features) @ weights).argmax(1)]


@pytest.mark.parametrize(
    ("examples", "features"), [(12, 40), (39, 40), (40, 40), (41, 40), (200, 40), (30, 3)], ids=lambda number: str(number)
)
@pytest.mark.parametrize("l2", [1e-2, 1.0, 2.0**10])
def test_the_ridge_is_that_of_the_normal_equations_with_fewer_or_more_examples_than_features(examples, features, l2):
    rng = np.random.default_rng(examples)
    labels = np.array([1, 5, 6])[np.arange(examples) % 3]
    x = (rng.normal(size=(examples, features)) * rng.uniform(0.1, 10, features) + 3 + labels[:, None] / 3).astype(np.float32)
    test = (rng.normal(size=(300, features)) * 5 + 4).astype(np.float32)
    predicted = ridge_predict(x, labels, test, l2)
    np.testing.assert_array_equal(predicted, by_normal_equations(np.float64(x), labels, np.float64(test), l2))
    assert set(predicted) <= {1, 5, 6}
    assert len(set(predicted)) > 1


@pytest.mark.parametrize(("examples", "features"), [(12, 40), (40, 40), (41, 40), (200, 40), (30, 3)])
def test_one_eigendecomposition_gives_the_accuracies_of_the_ridge_at_all_strengths(monkeypatch, examples, features):
    rng = np.random.default_rng(examples)
    labels, test_labels = np.array([1, 5, 6])[np.arange(examples) % 3], np.array([1, 5, 6])[np.arange(300) % 3]
    scale = rng.uniform(0.1, 10, features)
    x, test = (((rng.normal(size=(len(y), features)) + y[:, None] / 5) * scale).astype(np.float32) for y in (labels, test_labels))
    x[:, 0] = test[:, 0] = 5  # A feature that never changes makes X^T X singular.
    expected = [np.mean(ridge_predict(x, labels, test, l2) == test_labels) for l2 in STRENGTHS]
    assert (STRENGTHS[0], STRENGTHS[-1], len(STRENGTHS)) == (2.0**-10, 2.0**19, 30) and len(set(expected)) > 1
    np.testing.assert_array_equal(ridge_accuracies(x, labels, test, test_labels, STRENGTHS), expected)
    monkeypatch.setattr(fewshot_module, "OUTPUTS", 100)  # Many parts of the test examples give what one gives.
    np.testing.assert_array_equal(ridge_accuracies(x, labels, test, test_labels, STRENGTHS), expected)


def test_a_feature_that_never_changes_does_no_harm():
    x = np.array([[0, 5], [1, 5], [10, 5], [11, 5]], np.float32)
    assert ridge_predict(x, np.array([0, 0, 1, 1]), np.array([[2, 5], [9, 5]], np.float32), 1.0).tolist() == [0, 1]


def clusters(examples: int, seed: int, spread: float) -> dict[str, np.ndarray]:
    """Features (as "image") of four classes around the corners of a simplex, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(examples) % 4
    features = np.eye(4)[labels] + spread * rng.normal(size=(examples, 4))
    return {"image": features.astype(np.float32), "labels": labels[:, None].astype(np.int32)}


class Rows:
    """Features as images, as a source that counts which records are read."""

    def __init__(self, data: dict[str, np.ndarray]):
        self.data, self.read = data, []
        self.num_classes, self.class_names, self.max_labels = 4, tuple("abcd"), 1

    def __len__(self) -> int:
        return len(self.data["labels"])

    def __getitem__(self, index: int) -> Record:
        self.read.append(index)
        return Record(self.data["image"][index], self.labels(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return tuple(label for label in self.data["labels"][index].tolist() if label >= 0)


def batches_of(source, mesh):
    """Batches of 8 whose last is filled up with rows of mask 0 and a wrong label."""
    for start in range(0, len(source), 8):
        records = [source[index] for index in range(start, min(start + 8, len(source)))]
        padding = [Record(np.full(4, 100, np.float32), (2,))] * (8 - len(records))
        labels = [record.labels[0] if record.labels else -1 for record in records + padding]
        batch = {"image": np.stack([record.image for record in records + padding]), "labels": np.array(labels, np.int32)[:, None]}
        yield to_global(batch | {"mask": (np.arange(8) < len(records)).astype(np.float32)}, mesh)


def figures_of(train: Rows | dict, test: dict, shots: tuple[int, ...], seeds: tuple[int, ...], **options) -> dict:
    def predict(params, images):
        return None, images * params["scale"]

    train, test = train if isinstance(train, Rows) else Rows(train), Rows(test)
    config = fewshot(dataset("digits"), dataset("digits"), shots=shots, seeds=seeds, **options)
    check = functools.partial(check_shots, shots=max(shots), class_names="abcd", path="config.evals.few")
    few = FewShot(config, train, batches_of, functools.partial(batches_of, test), predict, make_mesh(1), check)
    return few({"scale": np.float32(3)}).figures


@pytest.mark.parametrize("without_label", [(), (0, 7, 8, 100)])
def test_only_the_shots_go_through_the_model_and_the_figures_are_those_of_all_features(without_label):
    train, test, shots, seeds = Rows(clusters(200, 0, 0.6)), clusters(61, 1, 0.6), (1, 3), (0, 1, 5)
    train.data["labels"][list(without_label)] = -1
    figures = figures_of(train, test, shots, seeds)
    labeled = np.flatnonzero(train.data["labels"][:, 0] >= 0)
    features, labels = 3 * train.data["image"][labeled], train.data["labels"][labeled, 0]
    chosen = {(k, seed): choose_shots(labels, k, seed) for k in shots for seed in seeds}
    for k in shots:
        expected = [
            np.mean(ridge_predict(features[rows], labels[rows], 3 * test["image"], 2.0**10) == test["labels"][:, 0])
            for rows in (chosen[k, seed] for seed in seeds)
        ]
        assert figures[f"top1_{k}shot_seeds"] == expected
    assert sorted(train.read) == sorted(set(labeled[np.concatenate(list(chosen.values()))].tolist()))
    assert len(train.read) <= 4 * 3 * 3


def test_an_evaluator_of_a_config_takes_the_shots_of_its_own_labels(tiny_config):
    """The same figures as from the features of every example, computed apart."""
    model, mesh = make_model(tiny_config.model, 10), make_mesh(1, jax.devices()[:1])
    params = jax.jit(lambda: init_params(model, 8, 0))()
    examples = open_examples(tiny_config, tuple("0123456789"), "x", host_transform(tiny_config.model))
    predict = make_predict(model, mesh)
    evaluator = make_evaluators(tiny_config.evals, examples, predict, None, "softmax", mesh)["fewshot"]
    features, labels = {}, {}
    for field in ("train", "test"):
        batches = list(examples["fewshot"][field].batches(mesh))
        mask = np.concatenate([batch["mask"] for batch in batches]) > 0
        features[field] = np.concatenate([jax.jit(predict)(params, batch["image"])[1] for batch in batches])[mask]
        labels[field] = np.concatenate([np.asarray(batch["labels"])[:, 0] for batch in batches])[mask]
    figures = evaluator(params).figures
    options = tiny_config.evals.fewshot
    for shots, (number, seed) in itertools.product(options.shots, enumerate(options.seeds)):
        rows = choose_shots(labels["train"], shots, seed)
        predicted = ridge_predict(features["train"][rows], labels["train"][rows], features["test"], options.l2)
        expected = np.mean(predicted == labels["test"])
        assert figures[f"top1_{shots}shot_seeds"][number] == pytest.approx(expected, abs=2 / len(predicted))  # float32


def test_the_strength_that_is_best_on_the_test_examples_is_named_and_gives_the_figures_of_that_fixed_strength():
    train, test, seeds = clusters(200, 0, 0.9), clusters(121, 1, 0.9), (0, 1, 5)
    figures = figures_of(train, test, (1, 25), seeds, l2_choice="best_on_test")
    features, labels, chosen = 3 * train["image"], train["labels"][:, 0], {}
    for k in (1, 25):
        shots = [choose_shots(labels, k, seed) for seed in seeds]
        of_seeds = {
            l2: [np.mean(ridge_predict(features[x], labels[x], 3 * test["image"], l2) == test["labels"][:, 0]) for x in shots]
            for l2 in STRENGTHS
        }
        means = {l2: np.mean(accuracies) for l2, accuracies in of_seeds.items()}
        chosen[k] = figures[f"l2_{k}shot_best_on_test"]
        assert chosen[k] == max(l2 for l2 in STRENGTHS if means[l2] == max(means.values()))  # Of several, the largest.
        assert figures[f"top1_{k}shot_best_on_test_seeds"] == of_seeds[chosen[k]]
    assert len(set(chosen.values())) == 2 and 2.0**10 not in chosen.values()

    fixed = figures_of(train, test, (25,), seeds, l2=chosen[25])
    assert fixed["top1_25shot"] == figures["top1_25shot_best_on_test"]
    assert fixed["top1_25shot_seeds"] == figures["top1_25shot_best_on_test_seeds"]
    assert fixed.keys() & figures.keys() == {"examples"}  # Nobody takes a figure that peeks for another.


def test_figures_that_peek_can_choose_a_checkpoint_by_their_own_name_and_a_fixed_strength_is_refused_beside(tiny_config):
    tiny_config.evals.fewshot.l2_choice = "best_on_test"
    tiny_config.evals.fewshot.every.steps = 5
    tiny_config.checkpoint.best = "evals.fewshot.top1_5shot_best_on_test"
    validate(tiny_config)
    tiny_config.checkpoint.best = "evals.fewshot.top1_5shot"
    with pytest.raises(UserError, match=r"one of .*evals.fewshot.top1_1shot_best_on_test"):
        validate(tiny_config)
    tiny_config.checkpoint.best, tiny_config.evals.fewshot.l2 = "", 1.0
    with pytest.raises(UserError, match=r"evals.fewshot.l2 is 1.0: it must be 1024.0 with l2_choice=best_on_test"):
        validate(tiny_config)


def test_an_evaluator_is_described_as_before_unless_it_peeks(tiny_config):
    """A finished run of an earlier version is not evaluated once more for an option that it did not have."""
    names = tuple("0123456789")
    examples = open_examples(tiny_config, names, "x", host_transform(tiny_config.model))
    assert "l2_choice" not in describe_evaluators(tiny_config, examples)["fewshot"]
    tiny_config.evals.fewshot.l2_choice = "best_on_test"
    assert describe_evaluators(tiny_config, examples)["fewshot"]["l2_choice"] == "best_on_test"


def test_classes_that_a_plane_separates_are_all_told_apart():
    figures = figures_of(clusters(42, 0, 0.02), clusters(27, 1, 0.02), shots=(1, 5, 10), seeds=(0, 1))
    assert figures["examples"] == 27
    for shots in (1, 5, 10):
        assert figures[f"top1_{shots}shot"] == 1.0
        assert figures[f"top1_{shots}shot_seeds"] == [1.0, 1.0]


def test_the_figure_is_the_mean_over_seeds_of_which_each_has_its_own_shots():
    train, test = clusters(40, 0, 0.6), clusters(61, 1, 0.6)
    figures = figures_of(train, test, shots=(2,), seeds=(0, 1, 2))
    each = figures["top1_2shot_seeds"]
    assert figures["top1_2shot"] == pytest.approx(np.mean(each))
    assert len(set(each)) > 1
    assert 0.25 < figures["top1_2shot"] < 1
    assert all(round(accuracy * 61) == pytest.approx(accuracy * 61) for accuracy in each)


def test_a_class_with_fewer_examples_than_shots_or_with_none_is_refused_by_name():
    check = functools.partial(check_shots, class_names=("ant", "bee", "cat", "dog"), path="config.evals.few")
    train = np.array([0, 0, 1, 1, 2])
    check(train, np.array([0, 1, 2]), shots=1)  # nobody asks for the dog
    check(np.array([1, 1]), np.array([1]), shots=2)
    with pytest.raises(UserError, match=r"shots asks for 2 labeled .* config.evals.few.train has 1 of 'cat'\. Name"):
        check(train, np.array([0]), shots=2)
    with pytest.raises(UserError, match="has 0 of 'dog'"):
        check(train, np.array([0, 3]), shots=1)
    with pytest.raises(UserError, match="has 2 of 'ant' and too few of 3 more classes"):
        check(train, np.array([3]), shots=3)


def test_the_first_label_of_a_record_without_any_is_none():
    class Labels:
        def __len__(self):
            return 4

        def labels(self, index):
            return ((2, 0), (), (-1,), (1,))[index]

    assert first_labels(Labels()).tolist() == [2, -1, -1, 1]
