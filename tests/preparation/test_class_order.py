"""Classes named by numbers: in the order of numbers now, and in that of text in what older versions prepared."""

import json
import shutil
from pathlib import Path

import pytest
from preparation import miniature
from preparation.preparing import make

from mixer_jax.data.sources import class_tree
from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.errors import UserError
from mixer_jax.preparation import labeling

NUMBERS = {f"{number}/{number}_{image}.jpg": miniature.jpeg(2 * number + image) for number in range(12) for image in range(2)}
AS_TEXT, AS_NUMBERS = tuple(sorted(map(str, range(12)))), tuple(map(str, range(12)))


def tree(root: Path) -> tuple[str, dict]:
    return f"folder:{miniature.make_tree(root / 'tree', NUMBERS)}", {}


def zip_of(root: Path) -> tuple[str, dict]:
    return f"zip:{miniature.make_zip(root / 'x.zip', NUMBERS)}", {}


def named_by_negative_numbers(root: Path) -> tuple[str, dict]:
    """Names, and not the numbers of classes, as one of them is below 0."""
    (root / "labels.csv").write_text("".join(f"{name},{int(name.split('/')[0]) - 1}\n" for name in NUMBERS))
    return tree(root)[0], {"labels": str(root / "labels.csv")}


SOURCES = [tree, zip_of, named_by_negative_numbers]


@pytest.fixture
def by_an_older_version(monkeypatch):
    def prepare(*arguments, **options):
        with monkeypatch.context() as patch:
            for module in (class_tree, labeling):
                patch.setattr(module, "sort_classes", lambda names: tuple(sorted(set(names))))
            return make(*arguments, **options)

    return prepare


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("left", ["all but a shard", "the plan", "the plan and a shard"])
def test_a_split_that_an_older_version_made_or_began_keeps_its_order_and_is_mended(tmp_path, source, left, by_an_older_version):
    name, options = source(tmp_path)
    by_an_older_version(name, tmp_path / "to", records_per_shard=5, **options)
    split = tmp_path / "to/train"
    whole, order = miniature.folder_bytes(split), Manifest(split).class_names
    assert order != make(name, tmp_path / "new", **options) and order == tuple(sorted(order))
    shards = sorted(split.glob("*.array_record"))
    if left == "all but a shard":
        shards[1].unlink()
    else:
        manifest = json.loads((split / "manifest.json").read_text())
        shutil.rmtree(split)
        (split / ".preparing").mkdir(parents=True)
        (split / ".preparing/plan.json").write_text(json.dumps(manifest["made"]))
        if left == "the plan and a shard":
            (split / shards[0].name).write_bytes(whole[shards[0].name])
            (split / ".preparing/shard-000000.json").write_text(json.dumps(manifest["shards"][0]))
    make(name, tmp_path / "to", records_per_shard=5, **options)
    assert miniature.folder_bytes(split) == whole


@pytest.mark.parametrize("source", SOURCES)
def test_a_new_split_has_the_order_of_numbers(tmp_path, source):
    name, options = source(tmp_path)
    held = make(name, tmp_path / "to", **options)
    shift = -1 if options else 0
    assert Manifest(tmp_path / "to/train").class_names == tuple(str(number + shift) for number in range(12))
    assert all(labels == (str(int(image.split("/")[0]) + shift),) for image, (_, labels) in held.items())


def test_classes_that_are_given_are_those_that_are_made(tmp_path, by_an_older_version):
    name, _ = tree(tmp_path)
    by_an_older_version(name, tmp_path / "to")
    (tmp_path / "classes.txt").write_text("\n".join(AS_NUMBERS))
    with pytest.raises(UserError, match=r"holds another split \(other inputs_sha256\)"):
        make(name, tmp_path / "to", classes=str(tmp_path / "classes.txt"))
    assert Manifest(tmp_path / "to/train").class_names == AS_TEXT


def test_what_is_no_image_may_come_and_go_and_the_split_is_mended_all_the_same(tmp_path):
    name, _ = tree(tmp_path)
    make(name, tmp_path / "to", records_per_shard=5)
    before = miniature.folder_bytes(tmp_path / "to")
    (tmp_path / "tree/notes.txt").write_text("")
    victim = next((tmp_path / "to/train").glob("*.array_record"))
    victim.unlink()
    make(name, tmp_path / "to", records_per_shard=5)
    after = miniature.folder_bytes(tmp_path / "to")
    assert before.keys() == after.keys() and {file for file in after if after[file] != before[file]} == {"train/manifest.json"}
    made = json.loads(after["train/manifest.json"])["made"]
    assert (made["ignored_files"], made["ignored_kinds"]) == (1, {".txt": 1})
