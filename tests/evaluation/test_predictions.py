"""`python -m mixer_jax predict` says of image files what the evaluators would, and of each that it cannot read why."""

import csv
import dataclasses
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mixer_jax.__main__ import make_parser
from mixer_jax.app import run_tool
from mixer_jax.checkpoints.weights import Weights, load_weights, save_weights
from mixer_jax.data.sources.digits import DigitsSource
from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.evaluation import classifier
from mixer_jax.evaluation.classifier import load_classifier


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """The 359 test digits as files, in folders of their classes; the number of a file is that of the record."""
    folder, source = tmp_path_factory.mktemp("digits"), DigitsSource("test")
    for index in range(len(source)):
        record = source[index]
        (folder / str(record.labels[0])).mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{record.labels[0]}/{index:03d}.png"), record.image)
    return folder


def predict(*arguments: str | Path) -> int:
    argv = ["predict", *map(str, arguments)]
    return run_tool(make_parser(argv), argv)


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def with_metadata(tiny_run: Path, file: Path, classes: int = 10, names: tuple[str, ...] = (), **metadata: str) -> str:
    """The path of a file with the run's weights, for the first classes, which says `metadata` of itself."""
    weights = load_weights(str(tiny_run))
    arrays = {name: x[..., :classes] if name.startswith("head/") else x for name, x in weights.arrays.items()}
    names = names or weights.class_names[:classes]
    save_weights(dataclasses.replace(weights, arrays=arrays, class_names=names, metadata=weights.metadata | metadata), str(file))
    return str(file)


@pytest.mark.parametrize("few", [1000, 10], ids=["threads", "processes"])
def test_the_share_of_right_answers_is_the_evaluators(
    tiny_run: Path, digits: Path, tmp_path: Path, few: int, monkeypatch, capsys
):
    monkeypatch.setattr(classifier, "MAX_IMAGES_FOR_THREADS", few)
    assert predict(tiny_run, digits, "--out", tmp_path / "p.csv") == DONE
    rows = rows_of(tmp_path / "p.csv")
    assert [row["file"] for row in rows] == sorted(str(file) for file in digits.rglob("*.png"))
    test = json.loads((tiny_run / "results.json").read_text())["evals"]["test"]
    assert np.mean([Path(row["file"]).parent.name == row["class_1"] for row in rows]) == pytest.approx(test["top1"])
    top5 = [Path(row["file"]).parent.name in [row[f"class_{place}"] for place in range(1, 6)] for row in rows]
    assert np.mean(top5) == pytest.approx(test["top5"])
    for row in rows:
        shares = [float(row[f"probability_{place}"]) for place in range(1, 6)]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 1 and row["unreadable"] == ""
    assert "359 images, softmax over 10 classes" in capsys.readouterr().out


def test_the_files_that_are_named_are_told_apart_from_folders_and_images_may_have_any_size(tiny_run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, shape in {"1.jpg": (1, 1, 3), "2.png": (3, 200, 3), "3.bmp": (300, 7, 3), "4.png": (20, 20)}.items():
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, shape, np.uint8))
    named = (tmp_path / "2.png").rename(tmp_path / "without a suffix")
    (tmp_path / "sub/sub").mkdir(parents=True)
    (tmp_path / "1.jpg").rename(tmp_path / "sub/sub/1.jpg")
    assert predict(tiny_run, named, tmp_path) == DONE
    shown = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == [str(named), *(str(tmp_path / name) for name in ("3.bmp", "4.png", "sub/sub/1.jpg"))]


def test_what_cannot_be_read_is_named_with_the_reason_and_the_rest_is_predicted(tiny_run, digits, tmp_path, capsys):
    files = sorted(digits.rglob("*.png"))[:3]
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 and no more")
    (tmp_path / "b.png").symlink_to("nowhere.png")
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((1, 60_000, 3), np.uint8))
    (tmp_path / "d.png").mkdir()
    cv2.imwrite(str(tmp_path / "d.png/d.png"), np.zeros((9, 9, 3), np.uint8))
    bad = [tmp_path / name for name in ("a.jpg", "b.png", "c.png")]
    assert predict(tiny_run, *files, *bad, tmp_path / "d.png", "--out", tmp_path / "p.csv") == TO_MEND
    rows = rows_of(tmp_path / "p.csv")
    reasons = [row["unreadable"] for row in rows]
    assert [bool(reason) for reason in reasons] == [False] * 3 + [True] * 3 + [False]
    assert "damaged JPEG" in reasons[3] and "No such file" in reasons[4] and "too thin" in reasons[5]
    assert all(bool(row["class_1"]) == (not row["unreadable"]) for row in rows)
    said = capsys.readouterr().err
    assert "3 of 7 images cannot be read" in said and "a.jpg (a damaged JPEG" in said and "Traceback" not in said


def steps(**changes) -> dict:
    return {"resize": "small", "resize_size": 8, "central_crop": 8, "value_range": [-1, 1]} | changes


def test_names_of_any_bytes_stand_in_a_csv_that_any_program_reads(tiny_run, digits, tmp_path):
    image = next(digits.rglob("*.png")).read_bytes()
    names = [b'a, "b"\n.png', b"caf\xe9.png", "café.png".encode(), b"=1+1.png"]
    (tmp_path / "in").mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name)).write_bytes(image)
    assert predict(tiny_run, tmp_path / "in", "--out", tmp_path / "p.csv") == DONE
    found = {row["file"].removeprefix(f"{tmp_path}/in/") for row in rows_of(tmp_path / "p.csv")}
    assert found == {'a, "b"\n.png', r"caf\udce9.png", "café.png", "=1+1.png"}


# What a file of weights says of itself, the number of classes, and what is said and written of a digit.
HEADS = {
    "two classes": ({}, 2, (), 2, 1.0, "softmax over 2 classes"),
    "sigmoid": ({"loss": "sigmoid"}, 10, (), 5, None, "sigmoid over 10 classes"),
    "an unknown loss": ({"loss": "hinge"}, 10, (), 5, None, "does not say with which loss it was trained"),
    "names": ({}, 2, ("n01440764", "my cat"), 2, 1.0, ""),
    "another size": (
        {"preprocessing": json.dumps(steps(central_crop=16, resize_size=32))},
        10,
        (),
        5,
        None,
        "are for 8: it is given images of 8 px",
    ),
    "no range": ({"preprocessing": json.dumps(steps(value_range=None))}, 10, (), 5, None, "expects is not known"),
    "another range": ({"preprocessing": json.dumps(steps(value_range=[0, 1]))}, 10, (), 5, None, r"said to be [0, 1]"),
}


@pytest.mark.parametrize("case", HEADS)
def test_every_head_is_answered_as_it_was_trained_and_what_is_not_known_is_said(case, tiny_run, digits, tmp_path, capsys):
    metadata, classes, names, shown, total, said = HEADS[case]
    weights = with_metadata(tiny_run, tmp_path / "w.npz", classes, names, **metadata)
    image = next(digits.rglob("*.png"))
    assert predict(weights, image, "--out", tmp_path / "p.csv") == DONE
    (row,) = rows_of(tmp_path / "p.csv")
    assert len([name for name in row if name.startswith("class_")]) == shown
    shares = [float(row[f"probability_{place}"]) for place in range(1, shown + 1)]
    assert total is None or sum(shares) == pytest.approx(total, abs=1e-5)
    assert said in "".join(capsys.readouterr())
    if names:
        assert {row["class_1"], row["class_2"]} == {"n01440764 tench", "my cat"}
    if metadata.get("loss") == "sigmoid":
        assert 0 < shares[0] < 1 and load_classifier(weights).loss == "sigmoid" and sum(shares) != pytest.approx(1, abs=1e-3)


def without_head(tiny_run: Path, file: Path) -> str:
    weights = load_weights(str(tiny_run))
    body = {name: x for name, x in weights.arrays.items() if not name.startswith("head/")}
    save_weights(Weights(body, weights.path, "run", 4, {}), str(file))
    return str(file)


def test_mistakes_are_said_before_anything_is_read(tiny_run: Path, digits: Path, tmp_path: Path, capsys):
    image = next(digits.rglob("*.png"))
    (tmp_path / "empty/sub").mkdir(parents=True)
    (tmp_path / "empty/sub/a.txt").touch()
    (tmp_path / "there.csv").write_text("mine")
    damaged = with_metadata(tiny_run, tmp_path / "w.npz", preprocessing=json.dumps(steps(resize="fold")))
    mistakes = {
        (tiny_run, tmp_path / "empty"): "holds no image at any depth",
        (tiny_run, tmp_path / "nothing"): "There is no file or folder",
        (tiny_run, image, "--out", tmp_path / "there.csv"): "there.csv exists already",
        (tiny_run, image, "--out", tmp_path / "no/p.csv"): "There is no folder",
        (tmp_path / "empty", image): "neither a run's folder",
        (without_head(tiny_run, tmp_path / "body.npz"), image): "has no head",
        (damaged, image): "its description of the preprocessing is damaged",
    }
    for arguments, message in mistakes.items():
        assert predict(*arguments) == TO_MEND
        said = capsys.readouterr().err
        assert message.lower() in said.lower() and said.count("\n") == 1, said
    assert (tmp_path / "there.csv").read_text() == "mine" and not list(tmp_path.glob("*.tmp"))
