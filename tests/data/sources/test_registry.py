"""Records by number: what each source holds, and what it says when it cannot."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from data import tfds_miniature

from mixer_jax.config import dataset
from mixer_jax.data.images import decode as images
from mixer_jax.data.sources.registry import open_source
from mixer_jax.errors import UserError


def pixels(value: int) -> np.ndarray:
    return np.full((4, 5, 3), value, np.uint8)


def png(value: int) -> bytes:
    return cv2.imencode(".png", pixels(value))[1].tobytes()


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


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """A folder of TFDS with three datasets in ArrayRecord files, prepared without TensorFlow.

    `tiny` has one label a record, `tinyset` a set of them, `tinytext` none; each has ten training and three test records. The
    classes are not registered: they are found by what lies in the folder, as anyone's own dataset is.
    """
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None  # nothing to download

        def _info(self):
            features = {"image": tfds.features.Image(encoding_format="png")} | self.label_features()
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(10), "test": self._generate_examples(3)}

        def _generate_examples(self, number):
            for i in range(number):
                yield i, {"image": png(10 * i)} | self.example_labels(i)

    class Tiny(Builder, skip_registration=True):
        def label_features(self):
            return {"label": tfds.features.ClassLabel(names=["ant", "bee"])}

        def example_labels(self, i):
            return {"label": i % 2}

    class Tinyset(Builder, skip_registration=True):
        def label_features(self):
            return {"labels": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=4))}

        def example_labels(self, i):
            return {"labels": list(range(i % 4))}

    class Tinytext(Builder, skip_registration=True):
        def label_features(self):
            return {"text": tfds.features.Text()}

        def example_labels(self, i):
            return {"text": "no label"}

    directory = tmp_path_factory.mktemp("tfds")
    for builder in (Tiny, Tinyset, Tinytext):
        builder(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory


def shade(image) -> int:
    """What `pixels` was given, from the record's image."""
    image = images.decode(image, 2**26) if isinstance(image, bytes) else image
    return round(image.mean())


def contents(source) -> list[tuple[int, tuple[int, ...]]]:
    return [(shade(source[i].image), source[i].labels) for i in range(len(source))]


def test_digits_are_all_of_scikit_learns_every_fifth_for_testing():
    from sklearn.datasets import load_digits

    whole = load_digits()
    train, test = (open_source(dataset("digits", split)) for split in ("train", "test"))
    assert (len(train), len(test)) == (1438, 359)
    for source, places in ((train, [i for i in range(1797) if i % 5 != 4]), (test, range(4, 1797, 5))):
        records = [source[i] for i in range(len(source))]
        seen = np.stack([record.image for record in records])
        assert (seen.shape[1:], seen.dtype) == ((32, 32, 3), np.uint8)
        assert np.all(seen == seen[..., :1])
        blocks = seen[..., 0].reshape(-1, 8, 4, 8, 4).mean((2, 4)) / 255 * 16  # back to 8 x 8, blurred a little
        assert np.abs(blocks - whole.images[places]).mean() < 1.5
        assert [record.labels for record in records] == [(label,) for label in whole.target[places]]


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


def test_a_tfds_dataset_is_read_without_tensorflow(tfds_dir):
    train, test = (open_source(dataset("tfds:tiny", split, data_dir=str(tfds_dir))) for split in ("train", "test"))
    assert (train.class_names, train.num_classes, train.max_labels) == (("ant", "bee"), 2, 1)
    assert sorted(contents(train)) == [(10 * i, (i % 2,)) for i in range(10)]
    assert sorted(contents(test)) == [(0, (0,)), (10, (1,)), (20, (0,))]
    assert "tensorflow" not in sys.modules


def test_slices_of_a_tfds_split_are_disjoint_and_complete(tfds_dir):
    def read(split):
        return contents(open_source(dataset("tfds:tiny", split, data_dir=str(tfds_dir))))

    assert read("train[:5]") + read("train[5:]") == read("train[:80%]") + read("train[80%:]") == read("train")
    assert read("train[2:4]") == read("train")[2:4]
    assert len(read("train+test")) == 13


def test_a_tfds_record_may_have_a_set_of_labels_also_an_empty_one(tfds_dir):
    source = open_source(dataset("tfds:tinyset", "train", data_dir=str(tfds_dir), max_labels=3))
    assert (source.num_classes, source.max_labels) == (4, 3)
    assert sorted(contents(source)) == [(10 * i, tuple(range(i % 4))) for i in range(10)]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("not_there", "train", "knows no dataset 'not_there'"),
        ("mnist", "train", r"mnist is not prepared in .*tfds build mnist --file_format=array_record"),
        ("tiny", "validation", r"nothing in a split 'validation': it has train \(10 examples\), test \(3 examples\)"),
        ("tiny", "train[", r"nothing in a split 'train\['"),
        ("tiny", "train[:0]", r"nothing in a split 'train\[:0\]'"),
        ("tiny", "train[:11]", r"nothing in a split 'train\[:11\]': it has train \(10 examples\)"),
        ("tiny:2.0.0", "train", r"2\.0\.0"),
        ("tiny/other", "train", "other"),
        ("mnist:9.9.9", "train", r"9\.9\.9"),
        ("no name", "train", "no name"),
        ("tinytext", "train", r"has the features .*text.*label\(s\)"),
    ],
)
def test_what_tfds_cannot_read_is_refused_in_words(tfds_dir, name, split, message):
    with pytest.raises(UserError, match=message):
        open_source(dataset(f"tfds:{name}", split, data_dir=str(tfds_dir)))


def test_a_dataset_that_tfds_prepared_as_tfrecord_is_refused_with_the_command_that_converts_it(tfds_dir, tmp_path):
    old, new = tfds_dir / "tiny/1.0.0", tmp_path / "tiny/1.0.0"
    new.mkdir(parents=True)
    for file in old.iterdir():
        (new / file.name.replace("array_record", "tfrecord")).write_bytes(file.read_bytes())
    info = json.loads((old / "dataset_info.json").read_text())
    (new / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(
        UserError, match=f"not in ArrayRecord files.*--out_dir={tmp_path}-array_record/tiny/1.0.0.*data_dir={tmp_path}-array"
    ):
        open_source(dataset("tfds:tiny", "train", data_dir=str(tmp_path)))


def test_imagenets_reassessed_labels_are_sets_some_of_them_empty(tmp_path):
    sets = [[7], [], [3, 999], [0, 1, 2]]
    tfds_miniature.make(tmp_path, "imagenet2012_real", {"validation": 50_000}, real_label=lambda number: sets[number % 4])
    source = open_source(dataset("tfds:imagenet2012_real", "validation", data_dir=str(tmp_path), max_labels=3))
    assert (len(source), source.num_classes, source.class_names[:2]) == (50_000, 1000, ("n01440764", "n01443537"))
    seen = sorted(source.labels(index) for index in range(tfds_miniature.EXAMPLES))
    assert seen == sorted(3 * [tuple(labels) for labels in sets])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ""}, "digits, glyphs, folder:DIR, tfds:NAME, vtab:TASK or records:DIR"),
        ({"source": "imagenet"}, "digits, glyphs, folder:DIR, tfds:NAME, vtab:TASK or records:DIR"),
        ({"source": "digits", "split": "validation"}, "no split 'validation': it has train, test"),
        ({"source": "digits", "examples_per_class": 200}, "class '[0-9]' has only 1[0-9][0-9] records"),
    ],
)
def test_a_source_that_is_not_there_is_refused_with_those_that_are(changes, message):
    with pytest.raises(UserError, match=message):
        open_source(dataset(**changes))


def subset(examples_per_class: int, seed: int):
    return open_source(dataset("digits", "train", examples_per_class=examples_per_class, subset_seed=seed))


@pytest.mark.parametrize("examples_per_class", [1, 7, 100])
def test_a_subset_has_as_many_of_each_class_as_asked_and_none_twice(examples_per_class):
    chosen = subset(examples_per_class, 0)
    labels = [chosen.labels(i) for i in range(len(chosen))]
    assert sorted(labels) == [(label,) for label in range(10) for _ in range(examples_per_class)]
    assert len({chosen.locate(i) for i in range(len(chosen))}) == len(chosen)
    assert [chosen[i].labels for i in range(len(chosen))] == labels
    assert (chosen.num_classes, chosen.class_names) == (10, tuple("0123456789"))


def test_a_subset_is_a_function_of_its_seed_and_those_of_one_seed_are_nested():
    def records(examples_per_class, seed):
        chosen = subset(examples_per_class, seed)
        return {chosen.locate(i) for i in range(len(chosen))}

    assert records(5, 0) == records(5, 0)
    assert records(5, 0) < records(20, 0)
    assert len(records(20, 0) & records(20, 1)) < 100  # of 200
