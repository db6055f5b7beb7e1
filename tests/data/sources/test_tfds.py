"""Datasets that TFDS prepared: read without TensorFlow, and refused in words."""

import json
import sys

import pytest
from data import tfds_miniature
from data.sources.shades import contents

from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import open_source
from mixer_jax.errors import UserError


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


HOSTILE = {
    "as now": {"pythonClassName": "evil.Feature", "featuresDict": {"features": {}}},
    "as in the proto": {"python_class_name": "evil.Feature"},
    "as before 2022": {"type": "evil.Feature", "content": {}},
    "within": {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": {"image": {"pythonClassName": "evil.Feature", "image": {}}}},
    },
    "in a text": {
        "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
        "jsonFeature": {"json": '{"feature": {"type": "evil.Feature", "content": {}}}'},
    },
}


@pytest.mark.parametrize("name", ["tiny", "tiny:1.0.0", "mnist", "mnist:3.0.1"])
@pytest.mark.parametrize("form", HOSTILE)
def test_no_code_but_that_of_tfds_runs(tmp_path, monkeypatch, form, name):
    dataset_name, _, version = name.partition(":")
    folder = tmp_path / "tfds" / dataset_name / (version or "1.0.0")
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps(HOSTILE[form]))
    (folder / "dataset_info.json").write_text(json.dumps({"name": dataset_name, "version": version or "1.0.0"}))
    (tmp_path / "evil.py").write_text("raise SystemExit('evil code ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"names the class 'evil\.Feature', whose code TFDS would run"):
        open_source(dataset(f"tfds:{name}", "train", data_dir=str(tmp_path / "tfds")))


@pytest.mark.parametrize("name", ["huggingface:mnist", "evil:tiny/1", "tiny/a=1", "Tiny", "../tiny", "tiny/..", "evil.module"])
def test_a_name_for_which_tfds_would_fetch_or_make_code_is_refused(tfds_dir, name):
    with pytest.raises(UserError, match="must be tfds:NAME"):
        open_source(dataset(f"tfds:{name}", "train", data_dir=str(tfds_dir)))


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
