"""big_vision's pipeline does the same work on the same images as ours, and messages say what is missing for the comparison."""

import sys
from pathlib import Path

import pytest

from benchmarks.beside_big_vision import big_vision, preprocessing, write_images
from mixer_jax.bench import pipelines
from mixer_jax.data.sources.digits import DigitsSource
from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.errors import UserError


def test_big_vision_is_asked_for_what_the_config_says(tiny_config):
    augment = tiny_config.augment
    augment.update(flip=True, randaugment_layers=2, randaugment_magnitude=15, crop_min_area=0.05)
    crop, flip, randaugment = preprocessing(augment, 224).split("|")
    assert crop.startswith("decode_jpeg_and_inception_crop(224, 5.0, 100, 0.75, 1.33") and flip == "flip_lr"
    assert randaugment == "randaug(2, 15)"
    assert "randaug" not in preprocessing(pipelines.without_randaugment(augment), 224)
    augment.crop = "random"
    with pytest.raises(UserError, match="crop is random"):
        preprocessing(augment, 224)


def test_only_jpegs_can_be_compared(tmp_path: Path):
    with pytest.raises(UserError, match="digits train record 0 is none"):
        write_images(DigitsSource("train"), 4, tmp_path)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return the folder of a clone that has neither big_vision's code nor TensorFlow."""
    (tmp_path / "clone/big_vision/pp").mkdir(parents=True)
    (tmp_path / "clone/big_vision/pp/builder.py").write_text("")
    (tmp_path / "clone/tensorflow.py").write_text("raise ImportError('no TensorFlow here')")
    (tmp_path / "images/class").mkdir(parents=True)
    (tmp_path / "images/class/0.jpg").write_bytes(b"\xff\xd8")
    return tmp_path / "clone"


@pytest.mark.parametrize(
    ("folder", "python", "message"),
    [
        (".", sys.executable, "no clone of big_vision.*git clone"),
        ("clone", "/no/python", "/no/python cannot be run: No such file.*make peers"),
        ("clone", sys.executable, "does not run big_vision: ImportError: no TensorFlow here.*make peers"),
    ],
)
def test_what_is_missing_for_a_comparison_is_one_message(clone: Path, folder: str, python: str, message: str):
    source = FolderSource(str(clone.parent / "images"), "")
    with pytest.raises(UserError, match=message), big_vision(clone.parent / folder, python, source, 1, 224):
        pass
