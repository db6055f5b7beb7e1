"""Classes are compared by name, for all pairs of sets, kinds of sources and places in the code where two sets meet."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints.models import SMALL, random_weights
from data.sources.shades import png
from tiny_config import get_config

import train
from mixer_jax import classes
from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.checkpoints.files import write_arrays
from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.checkpoints.transfer import init_from
from mixer_jax.checkpoints.weights import load_weights, save_weights, tree_of
from mixer_jax.config import classification, dataset, fewshot
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.relabeled import Relabeled
from mixer_jax.errors import UserError
from mixer_jax.evaluation.evaluators import open_examples
from mixer_jax.export.cli import class_metadata
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec

ANIMALS = ("cat", "dog", "elk")
PAIRS = {  # (names, the names to map them to) -> their numbers there, or a part of the error message
    "the same": (ANIMALS, ANIMALS, (0, 1, 2), ""),
    "another order": (("elk", "cat", "dog"), ANIMALS, (2, 0, 1), "in another order"),
    "some": (("dog", "elk"), ANIMALS, (1, 2), "only 2 of the 3"),
    "the first ones": (("cat", "dog"), ANIMALS, (0, 1), "only 2 of the 3"),
    "one unknown": (("dog", "fox"), ANIMALS, None, r"A: 2 \(dog, fox\)\. B: 3 \(cat, dog, elk\)\. Only in the first: 1 \(fox\)"),
    "all unknown": (("a", "b", "c"), ANIMALS, None, "Only in the first: 3"),
    "more": ((*ANIMALS, "fox"), ANIMALS, None, r"Only in the first: 1 \(fox\)"),
    "numbers": (("0", "1", "2"), ANIMALS, (0, 1, 2), "as A does not name its classes"),
    "onto numbers": (ANIMALS, ("0", "1", "2"), (0, 1, 2), "as B does not name its classes"),
    "numbers of another count": (("0", "1"), ANIMALS, None, "so both must have the same number of classes"),
    "onto numbers of another count": (ANIMALS, ("0", "1"), None, "so both must have the same number of classes"),
    "only numbers": (("0", "1"), ("0", "1", "2"), (0, 1), "only 2 of the 3"),
    "some numbers": (("0", "2"), ("0", "1", "2"), (0, 2), "only 2 of the 3"),
    "numbers in another order": (("2", "0", "1"), ("0", "1", "2"), (2, 0, 1), "in another order"),
    "a name twice": (("dog", "cat"), ("cat", "dog", "dog"), None, "Two classes have one name"),
    "a name twice, the same": (("cat", "cat"), ("cat", "cat"), (0, 1), ""),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_class_keeps_its_name_or_is_refused(case: str):
    names, onto, numbers, said = PAIRS[case]
    if numbers is None:
        with pytest.raises(UserError, match=said):
            classes.map_classes(names, "A", onto, "B")
        return
    found = classes.map_classes(names, "A", onto, "B")
    assert found.numbers == numbers
    assert said in found.note and bool(said) == bool(found.note)
    if classes.has_names(names) == classes.has_names(onto):
        assert tuple(onto[number] for number in numbers) == names


SPLITS = {  # {split of a data set: the names of its classes}
    "train": ANIMALS,
    "same": ANIMALS,
    "fewer": ("dog", "elk"),
    "other": ("dog", "fox"),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """Return {kind: URI} of the same images in each kind of source that names its classes. A class has images of one shade."""
    root = tmp_path_factory.mktemp("classes")
    for split, names in SPLITS.items():
        for name in names:
            folder = root / "folder" / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                (folder / f"{number}.png").write_bytes(png(10 * ord(name[0]) % 256))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
            prepare(PreparationSpec(f"folder:{root / 'folder' / split}", split), root / "records", threads=1)
    return {"folder": f"folder:{root / 'folder'}", "records": f"records:{root / 'records'}"}


def shown(source) -> dict[int, set[int]]:
    """Return {label: the shades of its images}."""
    shades: dict[int, set[int]] = {}
    for index in range(len(source)):
        record = source[index].decode(2**20, strict=True)
        assert record.labels == source.labels(index)
        shades.setdefault(record.labels[0], set()).add(int(record.image.mean()))
    return shades


@pytest.mark.parametrize("kind", ["folder", "records"])
@pytest.mark.parametrize("place", ["classification", "fewshot"])
@pytest.mark.parametrize("split", ["same", "fewer", "other"])
def test_an_evaluator_has_its_models_classes_by_name(sources, kind: str, place: str, split: str):
    config = get_config()
    config.num_classes = 3
    train, test = dataset(sources[kind], "train"), dataset(sources[kind], split)
    config.evals = {"e": classification(test) if place == "classification" else fewshot(train, test, shots=(1,))}
    trained_on = open_source(train)
    if split == "other":
        with pytest.raises(UserError, match=r"config\.evals\.e\.(data|test): 2 \(dog, fox\).*\(cat, dog, elk\)"):
            open_examples(config, trained_on.class_names, "the training data")
        return
    examples = open_examples(config, trained_on.class_names, "the training data")["e"][
        "data" if place == "classification" else "test"
    ]
    expected = shown(trained_on)
    assert shown(examples.source) == {label: expected[label] for label in range(3) if ANIMALS[label] in SPLITS[split]}
    assert examples.present == (None if split == "same" else (1, 2))
    assert bool(examples.note) == (split == "fewer")


@pytest.mark.parametrize(
    ("then", "message"),
    [(ANIMALS, ""), (None, ""), (("cat", "elk", "dog"), r"class 1: \('elk',\) then, \('dog',\) now"), (ANIMALS[:2], "class 2: ")],
)
def test_a_run_is_resumed_with_its_classes_alone(then, message: str):
    data = {"source": "x"}
    # None stands for a run from before names were stored.
    meta = {"data": data} | ({"class_names": classes.to_json(then)} if then else {})
    if not message:
        train.check_same_data(meta, data, ANIMALS)
        return
    with pytest.raises(UserError, match=message):
        train.check_same_data(meta, data, ANIMALS)


def test_an_exported_file_names_the_classes_in_words_too():
    ids = classes.known_names("imagenet2012")
    metadata = class_metadata(ids)
    assert (json.loads(metadata["class_names"])[0], json.loads(metadata["class_words"])[0]) == ("n01440764", "tench")
    assert class_metadata(ANIMALS) == {"class_names": '["cat", "dog", "elk"]'}
    assert class_metadata(classes.unnamed(3)) == {}


def test_a_label_that_is_no_class_stays_none(sources):
    class Unlabeled:
        max_labels = 1

        def labels(self, index):
            return (-1, 2)

    assert Relabeled(Unlabeled(), (1, 0), ("a", "b")).labels(0) == (-1, -1)


SEVEN = ("dog", *"abcdef")


def named(names: tuple[str, ...] = SEVEN, family: str = "mixer"):
    return dataclasses.replace(random_weights(SMALL[family]), class_names=names)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ""])
@pytest.mark.parametrize("names", [SEVEN, classes.unnamed(7)], ids=["named", "unnamed"])
@pytest.mark.parametrize("family", ["mixer", "vit", "resnet"])
def test_weights_keep_the_names_of_their_classes_in_every_form(tmp_path: Path, family: str, names, suffix: str):
    save_weights(named(names, family), str(tmp_path / f"w{suffix}"))
    assert load_weights(str(tmp_path / f"w{suffix}")).class_names == names


def test_a_zip_without_room_for_the_names_says_so(tmp_path: Path, capsys):
    names = tuple(f"{letter * 10_000}" for letter in "abcdefg")
    save_weights(named(names), str(tmp_path / "w.npz"))
    assert "no room for the names of its 7 classes" in capsys.readouterr().out
    assert load_weights(str(tmp_path / "w.npz")).class_names == classes.unnamed(7)


@pytest.mark.parametrize(
    ("said", "message"),
    [('["a", "b"]', "says that it has 2 classes, and its head has 7"), ("nonsense", "damaged"), ("[1, 2]", "damaged")],
)
def test_a_file_that_lies_about_its_classes_is_refused(tmp_path: Path, said: str, message: str):
    write_arrays(str(tmp_path / "w.npz"), named().arrays, {"class_names": said})
    with pytest.raises(UserError, match=message):
        load_weights(str(tmp_path / "w.npz"))


def test_weights_of_others_with_a_thousand_classes_are_those_of_imagenet(tmp_path: Path):
    arrays = named().arrays
    arrays |= {"head/kernel": np.zeros((24, 1000), np.float32), "head/bias": np.zeros(1000, np.float32)}
    write_arrays(str(tmp_path / "w.npz"), arrays, {})
    assert load_weights(str(tmp_path / "w.npz")).class_names == classes.known_names("imagenet2012")


OURS = {  # (init_head, our classes, the file of classes) -> columns of the old head, or a part of the error message
    "the same": ("restore", SEVEN, None, [0, 1, 2, 3, 4, 5, 6]),
    "another order": ("restore", SEVEN[::-1], None, [6, 5, 4, 3, 2, 1, 0]),
    "another name": ("restore", (*SEVEN[:6], "cat"), None, r"Only in the first: 1 \(cat\)"),
    "without names": ("restore", classes.unnamed(7), None, [0, 1, 2, 3, 4, 5, 6]),
    "a subset by name": ("subset", ("b", "dog"), None, [2, 0]),
    "a subset by number": ("subset", ("b", "dog"), "2 0", [2, 0]),
    "a subset by number in another order": ("subset", ("b", "dog"), "0 2", [2, 0]),
    "a subset of other classes": ("subset", ("b", "dog"), "1 0", r"Only in the first: 1 \(b\)"),
}


@pytest.mark.parametrize("family", ["mixer", "resnet"])
@pytest.mark.parametrize("case", OURS)
def test_a_restored_heads_columns_are_those_of_our_classes(tmp_path: Path, case: str, family: str):
    head, names, chosen, columns = OURS[case]
    weights = named(family=family)
    save_weights(weights, str(tmp_path / "w.npz"))
    file = tmp_path / "classes.txt" if chosen else None
    if file:
        file.write_text(chosen.replace(" ", "\n"))
    here = {
        name: jnp.zeros((*x.shape[:-1], len(names)) if name.startswith("head/") else x.shape)
        for name, x in weights.arrays.items()
    }
    arguments = (str(tmp_path / "w.npz"), tree_of(here), head, str(file or ""), names)
    if isinstance(columns, str):
        with pytest.raises(UserError, match=columns):
            init_from(*arguments)
        return
    merged, *_ = init_from(*arguments)
    merged = named_arrays(merged)
    for name, x in weights.arrays.items():
        np.testing.assert_array_equal(merged[name], x[..., columns] if name.startswith("head/") else x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["w.npz", "w.safetensors", "run"])
def test_weights_that_are_not_finite_are_refused_wherever_they_enter(tmp_path: Path, form: str, value: float):
    weights = named()
    weights.arrays["stem/bias"][3] = value
    path = str(tmp_path / form)
    if form == "run":
        checkpoints = Checkpoints(path, keep=2)
        checkpoints.save(1, {"params": tree_of(weights.arrays)}, {"step": 1})
        checkpoints.finish()
    else:
        write_arrays(path, weights.arrays, {})
    with pytest.raises(UserError, match=r"stem/bias holds 1 of 24 values that are not finite"):
        load_weights(path)


def test_known_lists_are_those_of_imagenet():
    first, second = classes.known_names("imagenet2012"), classes.known_names("imagenet21k")
    assert (len(first), len(second)) == (1000, 21_843)
    assert list(first) == sorted(first) and list(second) == sorted(second)
    assert set(first) - set(second) == {"n04399382"}
    assert [classes.describe(name) for name in (first[0], first[-1], "n1", "cat")] == ["tench", "toilet tissue", "n1", "cat"]
    assert classes.to_json(second) == "imagenet21k" and classes.from_json("imagenet21k") == second
    assert classes.from_json(json.loads(json.dumps(classes.to_json(ANIMALS)))) == ANIMALS


@pytest.mark.parametrize("value", [None, "imagenet", {}, [1, 2], 3])
def test_what_stands_for_no_class_names_is_refused(value):
    with pytest.raises(ValueError, match="class names"):
        classes.from_json(value)
