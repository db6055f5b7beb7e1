"""Two runs on the same examples: how they are aligned, what is refused, the figures, and the command."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mixer_jax.__main__ import main
from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.errors import UserError
from mixer_jax.evaluation.classification import Classification
from mixer_jax.evaluation.comparison import Comparison, compare, compare_runs
from mixer_jax.evaluation.comparison_text import comparison_figures, format_comparison
from mixer_jax.evaluation.example_predictions import ExamplePredictions, write_predictions
from mixer_jax.evaluation.paired import PairedCounts, bootstrap_interval, mcnemar_p_value
from mixer_jax.parallel import make_mesh, to_global
from mixer_jax.records import predictions_file

CLASSES = ("cat", "dog", "fox")
DATA = "split 'test', {} records (0123456789abcdef) of 3 classes (0123456789ab)"
RUNS = ("runs/a", "runs/b")


def predicted(labels: list[list[int]], answers: list[int], **changes) -> ExamplePredictions:
    """Predictions for the examples a.png, b.png, ..., the more probable the earlier, with `changes` of their fields."""
    count, width = len(labels), max(map(len, labels))
    rest = [[other for other in range(3) if other != answer] for answer in answers]
    shares = np.linspace(0.9, 0.5, count, dtype=np.float32)[:, None] / np.float32([1, 10, 20])
    return ExamplePredictions(
        step=40,
        params_sha256="0" * 64,
        data=DATA.format(count),
        class_names=CLASSES,
        records=np.arange(count),
        keys=[f"{chr(97 + number)}.png" for number in range(count)],
        labels=np.array([[*of_one, *[-1] * (width - len(of_one))] for of_one in labels], np.int32),
        classes=np.array([[answer, *others] for answer, others in zip(answers, rest, strict=True)], np.int32),
        probabilities=shares,
    )._replace(**changes)


LABELS = [[0], [1], [2], [0], [1], [2], [0], [1]]
A = predicted(LABELS, [0, 1, 2, 0, 2, 0, 2, 2])  # right: a b c d
B = predicted(LABELS, [0, 1, 2, 1, 1, 2, 0, 0])  # right: a b c e f g


def in_order(predictions: ExamplePredictions, rows: list[int], **changes) -> ExamplePredictions:
    arrays = {name: getattr(predictions, name)[rows] for name in ("labels", "classes", "probabilities")}
    keys = [predictions.keys[row] for row in rows]
    return predictions._replace(records=np.arange(len(rows)), keys=keys, **arrays)._replace(**changes)


def seen(comparison: Comparison) -> tuple:
    """What a comparison says, without the order of its examples."""
    keys = comparison.a.keys
    assert comparison.b.keys == keys
    changed = [[keys[row] for row in rows] for rows in (comparison.only_a, comparison.only_b)]
    return comparison.counts, *changed, comparison.unlabeled, comparison.notes


def test_examples_are_counted_by_who_has_them_right_and_those_that_changed_are_listed():
    counts = PairedCounts(both=3, only_a=1, only_b=3, neither=1)
    assert seen(compare(A, B, RUNS)) == (counts, ["d.png"], ["e.png", "f.png", "g.png"], 0, ())
    assert seen(compare(B, A, RUNS))[:3] == (PairedCounts(3, 3, 1, 1), ["e.png", "f.png", "g.png"], ["d.png"])


def test_the_surest_wrong_answers_come_first_and_equal_ones_by_key():
    shares = A.probabilities.copy()
    shares[4:7, 0] = (0.5, np.nan, 0.5)
    assert seen(compare(A._replace(probabilities=shares), B, RUNS))[2] == ["e.png", "g.png", "f.png"]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_examples_does_not_matter(seed: int):
    order = np.random.default_rng(seed).permutation(8).tolist()
    assert seen(compare(in_order(A, order), B, RUNS)) == seen(compare(A, B, RUNS))
    assert seen(compare(A, in_order(B, order), RUNS)) == seen(compare(A, B, RUNS))


def test_a_run_beside_itself_has_no_difference():
    counts, *changed, _, _ = seen(compare(A, A, RUNS))
    assert counts == PairedCounts(4, 0, 0, 4) and changed == [[], []]
    assert bootstrap_interval(counts, 0.95) == (0, 0) and mcnemar_p_value(counts) == 1


def test_with_several_labels_any_of_them_is_right_and_without_one_an_example_does_not_count():
    labels = [[0, 1], [2, 1], [], [1, 2]]
    a, b = predicted(labels, [1, 0, 0, 1]), predicted([[1, 0, 0], [1, 2], [], [2, 1]], [0, 2, 1, 0])
    assert seen(compare(a, b, RUNS)) == (PairedCounts(1, 1, 1, 0), ["d.png"], ["b.png"], 1, ())


def test_the_accuracies_are_those_of_the_evaluator():
    """The evaluator computes with logits on the devices, also for sets of labels and for examples without a label."""
    rng = np.random.default_rng(0)
    labels = [rng.choice(3, size, replace=False).tolist() for size in rng.integers(0, 3, 64)]
    drawn = predicted(labels, [0] * 64, keys=[str(number) for number in range(64)])
    models, top1 = [], []
    for _ in RUNS:
        batch = {"image": rng.normal(size=(64, 3)).astype(np.float32), "labels": drawn.labels, "mask": np.ones(64, np.float32)}
        evaluator = Classification(
            lambda mesh, batch=batch: iter([to_global(batch, mesh)]), lambda _, images: (images, None),
            lambda logits, labels: logits[:, 0], make_mesh(1), answered_loss="softmax",
        )  # fmt: skip
        figures, answers = evaluator({})
        models.append(drawn._replace(labels=answers.labels, classes=answers.classes, probabilities=answers.probabilities))
        top1.append((figures["top1"], figures["examples"]))
    counts = compare(*models, RUNS).counts
    assert [(pytest.approx(right / counts.examples, abs=1e-7), counts.examples) for right in counts.right] == top1
    assert top1[0][0] != top1[1][0] and counts.examples < 64


def test_examples_that_one_run_lacks_are_counted_and_said():
    part = in_order(B, [7, 3, 4], data=B.data)
    counts, _, _, _, notes = seen(compare(A, part, RUNS))
    assert counts == PairedCounts(0, 1, 1, 1) and notes == ("5 examples of runs/a are not in runs/b and do not count.",)
    assert compare(part, A, RUNS).notes == ("5 examples of runs/b are not in runs/a and do not count.",)


def renumbered(predictions: ExamplePredictions, order: list[int], names: tuple[str, ...]) -> ExamplePredictions:
    """The same predictions by a model whose class order[i] is our class i."""
    numbers = np.array([*order, -1], np.int32)
    data = predictions.data.replace("3 classes (0123456789ab)", f"{len(names)} classes (ba9876543210)")
    return predictions._replace(
        labels=numbers[predictions.labels], classes=numbers[predictions.classes], class_names=names, data=data
    )


@pytest.mark.parametrize(
    ("order", "names", "note"),
    [
        ([2, 0, 1], ("dog", "fox", "cat"), "in another order, mapped by name"),
        ([3, 1, 0], ("fox", "dog", "wolf", "cat"), "only 3 of the 4, mapped by name"),
        ([0, 1, 2], ("0", "1", "2"), "does not name its classes"),
    ],
)
def test_classes_in_another_order_are_compared_by_name_and_that_is_said(order, names, note):
    for first, second in ((A, renumbered(B, order, names)), (renumbered(A, order, names), B)):
        comparison = compare(first, second, RUNS)
        assert seen(comparison)[:3] == seen(compare(A, B, RUNS))[:3]
        assert len(comparison.notes) == 1 and note in comparison.notes[0]
        assert comparison.true_names(comparison.only_a[0]) == ["cat"]


REFUSED = {
    "data of another fingerprint": (
        A,
        B._replace(data=B.data.replace("0123456789abcdef", "f" * 16)),
        "of different data. runs/a",
    ),
    "another split": (A, B._replace(data=B.data.replace("test", "dev")), "of different data"),
    "another number of records": (A, B._replace(data=DATA.format(9)), "of different data"),
    "a key twice": (A, B._replace(keys=["x.png"] * 8), "In runs/b, two examples have the key 'x.png'"),
    "a key twice in the first": (A._replace(keys=["a", "b", "b", *"defgh"]), B, "In runs/a, two examples have the key 'b'"),
    "no common key": (A, B._replace(keys=list("12345678")), "no labeled example in common: 0 examples are in both"),
    "no labels": (*[x._replace(labels=np.full((8, 1), -1, np.int32)) for x in (A, B)], "8 examples are in both, none with a"),
    "another label": (
        A,
        predicted([[2], *LABELS[1:]], [0] * 8),
        "1 of 8 examples have different labels. For example, 'a.png' is cat in runs/a and fox in runs/b",
    ),
    "one label more": (A, predicted([*LABELS[:7], [1, 2]], [0] * 8), "'h.png' is dog in runs/a and dog, fox in runs/b"),
    "a label less": (A, predicted([[], *LABELS[1:]], [0] * 8), "'a.png' is cat in runs/a and without a label in runs/b"),
    "other classes": (A, renumbered(B, [0, 1, 2], ("cat", "dog", "cow")), "do not match.*Only in the first: 1 .(cow|fox)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_make_the_figures_wrong_is_refused(case: str):
    a, b, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        compare(a, b, RUNS)
    with pytest.raises(UserError):
        compare(b, a, RUNS)


def write(folder: Path, predictions: ExamplePredictions, evaluator: str = "test", **results) -> Path:
    file = predictions_file(folder, evaluator)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(file, predictions)
    (folder / "results.json").write_text(json.dumps({"step": 40, "params_sha256": "0" * 64} | results))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """The folders of two runs with the predictions A and B."""
    return str(write(tmp_path / "a", A)), str(write(tmp_path / "b", B))


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mixer_jax", "compare", *arguments])
        code = main()
        return code, *capsys.readouterr()

    return call


def test_the_command_prints_accuracies_the_difference_and_examples(runs, call):
    code, out, err = call(*runs, "--show=1")
    assert (code, err) == (DONE, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["A", runs[0], "40", "4", "50.00", "%"] in lines and ["B", runs[1], "40", "6", "75.00", "%"] in lines
    assert ["A", "is", "right", "3", "1"] in lines and ["A", "is", "wrong", "3", "1"] in lines
    assert "B - A: +25.00 points, 95 % interval -25.00 to +75.00 (bootstrap), p = 0.62 (McNemar, exact)" in out
    assert "These examples do not tell which is better, at the level 0.05." in out
    assert "Only B is right: 3 (1 are shown; --json lists all)" in out and "say nothing about training again" in out
    assert ["e.png", "dog", "fox", "67.1", "%", "dog", "67.1", "%"] in lines and "f.png" not in out


def test_json_has_all_figures_and_all_examples_that_changed(runs, call):
    code, out, _ = call(*runs, "--json", "--confidence=0.3", "--show=0")
    assert code == DONE and out.count("\n") == 1
    figures = json.loads(out)
    assert (figures["a"], figures["b"], figures["confidence"], figures["not_compared"]) == (*runs, 0.3, [])
    found = figures["evaluators"]["test"]
    counts = PairedCounts(3, 1, 3, 1)
    assert found["right"] == counts._asdict() and (found["examples"], found["unlabeled"]) == (8, 0)
    assert (found["a"]["top1"], found["b"]["top1"], found["difference"]) == (0.5, 0.75, 0.25)
    assert found["interval"] == list(bootstrap_interval(counts, 0.3)) and found["p_value"] == mcnemar_p_value(counts) == 0.625
    assert found["better"] == "b"  # at the level 0.7
    assert [(row["right"], row["key"]) for row in found["changed"]] == [("a", "d.png"), *(("b", f"{x}.png") for x in "efg")]
    assert found["changed"][0] == {
        "key": "d.png", "right": "a", "labels": ["cat"], "a": {"class": "cat", "probability": pytest.approx(0.7286, abs=1e-4)},
        "b": {"class": "dog", "probability": pytest.approx(0.7286, abs=1e-4)},
    }  # fmt: skip


def test_the_better_run_is_named_when_the_test_can_tell(tmp_path: Path):
    labels = [[0]] * 20
    keys = [str(number) for number in range(20)]
    a, b = predicted(labels, [0] * 8 + [1] * 12, keys=keys), predicted(labels, [0] * 20, keys=keys)
    runs = str(write(tmp_path / "a", a)), str(write(tmp_path / "b", b))
    for order, best in ((runs, "b"), (runs[::-1], "a")):
        compared = compare_runs(*order)
        assert comparison_figures(compared, 0.95)["evaluators"]["test"]["better"] == best
        other = "A" if best == "b" else "B"
        assert f"{best.upper()} is better than {other}, at the level 0.05." in format_comparison(compared, 0.95, 10)
        assert comparison_figures(compared, 0.9999)["evaluators"]["test"]["better"] is None  # p = 0.00049


def test_evaluators_are_chosen_by_name_and_those_of_one_run_are_said(runs, call):
    write(Path(runs[0]), A, "dev"), write(Path(runs[1]), B, "dev")
    write(Path(runs[0]), A, "real")
    code, out, _ = call(*runs)
    assert code == DONE and re.findall(r"^(\w+): 8 examples", out, re.MULTILINE) == ["dev", "test"]
    assert "Not compared, because only one of the runs has the predictions: real." in out
    assert re.findall(r"^(\w+): 8 examples", call(*runs, "--evaluator=test")[1], re.MULTILINE) == ["test"]
    code, _, err = call(*runs, "--evaluator=real")
    assert code == TO_MEND and err.startswith("error: The runs have no predictions of a common evaluator named real: ")
    assert f"{runs[0]} has those of dev, real, test; {runs[1]} has those of dev, test." in err


def test_what_cannot_be_compared_is_one_message(runs, call, tmp_path: Path):
    code, out, err = call(runs[0], str(tmp_path / "none"))
    assert (code, out) == (TO_MEND, "") and "there are no predictions for each example" in err and err.count("\n") == 1
    write(Path(runs[1]), B._replace(data="split 'other'"))
    code, _, err = call(*runs)
    assert code == TO_MEND and err.count("\n") == 1
    assert err.startswith("error: The predictions of \u201ctest\u201d cannot be compared. They are of different data. ")
    predictions_file(Path(runs[1]), "test").write_bytes(b"PAR1")
    code, _, err = call(*runs)
    assert code == TO_MEND and f"{runs[1]}/predictions/test.parquet is damaged" in err


def test_predictions_of_an_earlier_evaluation_are_said(runs, call):
    write(Path(runs[1]), B, params_sha256="1" * 64)
    _, out, _ = call(*runs)
    assert f"{runs[1]}: the predictions are of step 40, and results.json is of other parameters." in out
    assert f"{runs[0]}: the predictions" not in out


def test_names_of_others_print_as_one_line_each(tmp_path: Path, call):
    names = ("cat\n\x1b[31m", "dog", "n01440764")
    keys = ["a\tb\n.png", *A.keys[1:]]
    a, b = (predicted([[0], *LABELS[1:]], answers, class_names=names, keys=keys) for answers in ([1] * 8, [0] * 8))
    code, out, _ = call(str(write(tmp_path / "a", a)), str(write(tmp_path / "b", b)))
    assert code == DONE and "a?b?.png  cat??[31m  dog" in out and "n01440764 tench" not in out.partition("Only A")[0]


def test_a_run_beside_itself_has_the_accuracy_of_its_results(tiny_run: Path, call):
    code, out, _ = call(str(tiny_run), str(tiny_run), "--json")
    found = json.loads(out)["evaluators"]["test"]
    top1 = json.loads((tiny_run / "results.json").read_text())["evals"]["test"]["top1"]
    assert code == DONE and found["a"]["top1"] == found["b"]["top1"] == pytest.approx(top1, rel=1e-6)
    assert (found["difference"], found["interval"], found["p_value"], found["better"]) == (0, [0, 0], 1, None)
    assert found["changed"] == [] and found["notes"] == []


def test_runs_in_a_bucket_are_compared(runs, cloud):
    for name, folder in zip("ab", runs, strict=True):
        for file in ("results.json", "predictions/test.parquet"):
            cloud.objects["bucket", f"runs/{name}/{file}"] = (Path(folder) / file).read_bytes()
    cloud.objects["bucket", "runs/a/predictions/deep/er.parquet"] = b"no evaluator's"
    urls = ("gs://bucket/runs/a", "gs://bucket/runs/b/")
    there, here = (comparison_figures(compare_runs(*paths), 0.95) for paths in (urls, runs))
    assert (there.pop("a"), there.pop("b")) == urls and (here.pop("a"), here.pop("b")) == runs
    assert there == here
    assert comparison_figures(compare_runs(urls[0], runs[1]), 0.95)["evaluators"] == here["evaluators"]
    cloud.objects["bucket", "runs/b/predictions/test.parquet"] = b"PAR1"
    with pytest.raises(UserError, match=r"gs://bucket/runs/b/+predictions/test\.parquet is damaged"):
        compare_runs(*urls)
