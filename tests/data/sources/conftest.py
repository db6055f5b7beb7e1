"""A prepared split, and datasets of TFDS, made once."""

import shutil
from pathlib import Path

import pytest
from data.sources.prepared import NUM_IMAGES, PER_SHARD, labels_of
from data.sources.shades import png
from preparation import miniature

from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A split "train" of 30 images, with sets of labels out of 30 000, in 8 shards. Read only."""
    root = tmp_path_factory.mktemp("made")
    names = [f"{number:02d}.jpg" for number in range(NUM_IMAGES)]
    miniature.make_tree(root / "images", {name: miniature.jpeg(number) for number, name in enumerate(names)})
    (root / "labels.txt").write_text("".join(f"{name} {' '.join(map(str, labels_of(i)))}\n" for i, name in enumerate(names)))
    (root / "classes.txt").write_text("".join(f"class {label}\n" for label in range(30_000)))
    spec = PreparationSpec(
        f"folder:{root / 'images'}", "train", classes=str(root / "classes.txt"), labels=str(root / "labels.txt"),
        records_per_shard=PER_SHARD, allow_empty_classes=True,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        prepare(spec, root / "to", threads=2)
    return root / "to"


@pytest.fixture
def uploaded(cloud, made):
    """The split, in a bucket as gs://bucket/data."""
    for file in (made / "train").iterdir():
        cloud.objects["bucket", f"data/train/{file.name}"] = file.read_bytes()
    return cloud


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


@pytest.fixture(scope="session")
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
