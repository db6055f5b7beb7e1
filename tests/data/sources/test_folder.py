"""Folders of image files, and what is said of those that are not as they should be."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from conftest import ROOT
from data.sources.shades import contents, pixels

from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import open_source
from mixer_jax.errors import UserError


def fill(directory: Path, files: dict[str, int]) -> Path:
    """Image files by path, each of one shade of grey."""
    for name, value in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(directory / name), pixels(value))
    return directory


@pytest.fixture
def folder(tmp_path):
    """Two splits of two classes, jpg and png; "ant" comes before "bee", and in train has files that are no images."""
    fill(
        tmp_path, {"train/bee/1.jpg": 10, "train/bee/0.png": 20, "train/ant/z.JPEG": 30, "test/ant/a.png": 1, "test/bee/b.png": 2}
    )
    (tmp_path / "train/ant/notes.txt").write_text("no image")
    (tmp_path / "train/README.md").write_text("no class")
    return tmp_path


def test_a_folder_has_a_class_for_each_sub_folder_in_the_order_of_names(folder):
    source = open_source(dataset(f"folder:{folder}", "train"))
    assert (source.class_names, source.num_classes, len(source)) == (("ant", "bee"), 2, 3)
    assert contents(source) == [(30, (0,)), (20, (1,)), (10, (1,))]
    assert source.locate(0) == str(folder / "train/ant/z.JPEG")


def test_a_folder_without_splits_is_read_with_an_empty_one(folder):
    split = open_source(dataset(f"folder:{folder}", "test"))
    assert contents(open_source(dataset(f"folder:{folder}/test", ""))) == contents(split) == [(1, (0,)), (2, (1,))]


@pytest.mark.parametrize(
    ("make", "split", "message"),
    [
        ((), "train", r"no folder .*/train\b.*DIR/SPLIT/CLASS"),
        (("train/ant/",), "validation", r"no folder .*/validation"),
        (("train/",), "train", "has no sub-folders"),
        (("train/ant/", "train/bee/"), "train", "train/ant holds no image"),
    ],
)
def test_a_folder_that_is_not_as_it_should_be_is_refused_by_name(tmp_path, make, split, message):
    for directory in make:
        (tmp_path / directory).mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        open_source(dataset(f"folder:{tmp_path}", split))


def test_a_name_that_is_no_text_is_refused_and_one_that_only_the_locale_cannot_read_is_not_blamed(tmp_path):
    (tmp_path / "ant").mkdir()
    for name, advice in {b"\xff.png": "rename it", b"a\n.png": "rename it", "\u00fc.png".encode(): "Set PYTHONUTF8=1"}.items():
        file = os.fsencode(tmp_path / "ant") + b"/" + name
        open(file, "w").close()
        code = "from mixer_jax.data.sources.class_tree import list_folder\nfrom pathlib import Path\n"
        code += f"list_folder(Path({str(tmp_path)!r}))"
        locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
        ended = subprocess.run([sys.executable, "-c", code], env=os.environ | locale, capture_output=True, check=False)
        assert ended.returncode == 1 and advice.encode() in ended.stderr.splitlines()[-1]
        os.remove(file)
