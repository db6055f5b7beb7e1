"""Preparation: the official layouts, every image once with its bytes, and the same folder however often it was killed."""

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from preparation import miniature
from preparation.miniature import CLASSES
from preparation.preparing import IDS, TRAIN, TRUTH, VALIDATION, by_class, development_kit, make, tar_of_tars, tree

from mixer_jax.config import dataset
from mixer_jax.data.images.decode import JPEG, decode
from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.shards import ShardReader
from mixer_jax.errors import UserError
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec


def folder_of_tars(root: Path) -> str:
    (root / "tars").mkdir()
    for name in CLASSES:
        chosen = {Path(image).name: data for image, data in TRAIN.items() if image.startswith(name)}
        miniature.make_tar(root / "tars" / f"{name}.tar", chosen)
    return f"tars:{root / 'tars'}"


def plain_tar(root: Path) -> str:
    return f"tar:{miniature.make_tar(root / 'x.tar', TRAIN, tarfile.PAX_FORMAT)}"


def plain_zip(root: Path) -> str:
    return f"zip:{miniature.make_zip(root / 'x.zip', TRAIN)}"


@pytest.mark.parametrize("layout", [tree, tar_of_tars, folder_of_tars, plain_tar, plain_zip])
def test_every_layout_of_classes_gives_the_same_images_bytes_and_classes(tmp_path, layout):
    assert make(layout(tmp_path), tmp_path / "to") == by_class(TRAIN)
    manifest = Manifest(tmp_path / "to/train")
    assert manifest.class_names == CLASSES
    assert manifest.content["label_kind"] == "single"
    assert manifest.content["images_of_class"] == [5, 5, 5]


def test_the_shards_do_not_depend_on_the_layout_or_the_number_of_threads(tmp_path):
    make(tree(tmp_path), tmp_path / "one", threads=1, records_per_shard=2)
    make(tar_of_tars(tmp_path), tmp_path / "two", threads=5, records_per_shard=2)
    shards = [
        {name: data for name, data in miniature.folder_bytes(tmp_path / to).items() if "json" not in name}
        for to in ("one", "two")
    ]
    assert shards[0] == shards[1] and len(shards[0]) == 9  # With the index.


def test_what_is_prepared_decodes_as_the_folder_does(tmp_path):
    source = tree(tmp_path)
    make(source, tmp_path / "to")
    prepared, folder = open_source(dataset(f"records:{tmp_path / 'to'}")), open_source(dataset(source, ""))
    shown = [
        sorted((record.labels, decode(record.image, 2**26).tobytes()) for record in map(one.__getitem__, range(len(one))))
        for one in (prepared, folder)
    ]
    assert shown[0] == shown[1]


def test_only_what_lies_under_a_folder_is_taken(tmp_path):
    inside = {f"ILSVRC/Data/CLS-LOC/train/{name}": data for name, data in TRAIN.items()}
    outside = {"ILSVRC/Data/CLS-LOC/test/a.JPEG": miniature.jpeg(1), "ILSVRC/x.xml": b""}
    file = miniature.make_zip(tmp_path / "x.zip", inside | outside)
    assert make(f"zip:{file}", tmp_path / "to", under="ILSVRC/Data/CLS-LOC/train") == by_class(inside)


def ground_truth(root: Path) -> dict:
    (root / "truth.txt").write_text("".join(f"{number}\n" for number in TRUTH))
    (root / "ids.txt").write_text("\n".join(IDS))
    return {"labels": str(root / "truth.txt"), "synsets": str(root / "ids.txt")}


def ground_truth_and_mat(root: Path) -> dict:
    from mixer_jax.preparation.archives import small_tar_gz

    kit = small_tar_gz(Path(development_kit(root)["labels"]))
    (root / "meta.mat").write_bytes(kit["ILSVRC2012_devkit_t12/data/meta.mat"])
    return ground_truth(root) | {"synsets": str(root / "meta.mat")}


def names_and_classes(root: Path) -> dict:
    rows = zip(sorted(VALIDATION), TRUTH, strict=True)
    (root / "labels.txt").write_text("".join(f"{name} {IDS[number - 1]}\n" for name, number in rows))
    return {"labels": str(root / "labels.txt")}


def names_and_numbers(root: Path) -> dict:
    rows = zip(sorted(VALIDATION), TRUTH, strict=True)
    (root / "labels.csv").write_text("".join(f"{name},{CLASSES.index(IDS[number - 1])}\n" for name, number in rows))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return {"labels": str(root / "labels.csv"), "classes": str(root / "classes.txt")}


@pytest.mark.parametrize("labels", [development_kit, ground_truth, ground_truth_and_mat, names_and_classes, names_and_numbers])
def test_the_validation_images_get_their_classes_from_each_form_of_ground_truth(tmp_path, labels):
    tar = miniature.make_tar(tmp_path / "ILSVRC2012_img_val.tar", dict(reversed(VALIDATION.items())))
    held = make(f"tar:{tar}", tmp_path / "to", "validation", **labels(tmp_path))
    assert held == {name: (VALIDATION[name], (IDS[number - 1],)) for name, number in zip(sorted(VALIDATION), TRUTH, strict=True)}
    assert Manifest(tmp_path / "to/validation").class_names == CLASSES


def test_a_split_takes_its_classes_from_another(tmp_path):
    make(tree(tmp_path), tmp_path / "to")
    part = miniature.make_tree(tmp_path / "part", {f"{CLASSES[1]}/a.jpg": miniature.jpeg(0)})
    classes = str(tmp_path / "to/train/manifest.json")
    with pytest.raises(UserError, match=f"2 of 3 classes have no image, the first is '{CLASSES[0]}'.*--allow-empty-classes"):
        make(f"folder:{part}", tmp_path / "to", "test", classes=classes)
    held = make(f"folder:{part}", tmp_path / "to", "test", classes=classes, allow_empty_classes=True)
    assert held == {f"{CLASSES[1]}/a.jpg": (miniature.jpeg(0), (CLASSES[1],))}


def test_webdataset_tars_are_read_with_one_class_or_a_set(tmp_path):
    single = {"a/0.jpg": miniature.jpeg(0), "a/0.cls": b"2", "a/0.json": b"{}", "1.x.png": miniature.png(1), "1.cls": b"0\n"}
    miniature.make_tar(tmp_path / "x-0.tar", single)
    miniature.make_tar(tmp_path / "x-1.tar", {"a/0.jpeg": miniature.jpeg(3), "a/0.cls": b"1", "note.txt": b""})
    held = make(f"webdataset:{tmp_path}/x-*.tar", tmp_path / "single")
    assert held == {
        "00000/a/0.jpg": (miniature.jpeg(0), ("2",)), "00000/1.x.png": (miniature.png(1), ("0",)),
        "00001/a/0.jpeg": (miniature.jpeg(3), ("1",)),
    }  # fmt: skip
    miniature.make_tar(
        tmp_path / "y.tar", {"0.jpg": miniature.jpeg(0), "0.cls": b"7, 2 7", "1.jpg": miniature.jpeg(1), "1.cls": b""}
    )
    held = make(f"webdataset:{tmp_path}/y.tar", tmp_path / "sets", allow_empty_classes=True)
    assert {name: labels for name, (_, labels) in held.items()} == {"00000/0.jpg": ("2", "7"), "00000/1.jpg": ()}
    content = Manifest(tmp_path / "sets/train").content
    assert (content["label_kind"], content["max_labels"], content["classes"]) == ("multi", 2, 8)


def test_what_tfds_prepared_is_taken_with_its_bytes(tmp_path):
    import tensorflow_datasets as tfds

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None

        def _info(self):
            features = {"image": tfds.features.Image(), "labels": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=4))}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from ((i, {"image": file, "labels": [3, i]}) for i, file in enumerate(files))

    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        file.write_bytes(miniature.png(i))
    Small(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    held = make("tfds:small", tmp_path / "to", data_dir=str(tmp_path))
    assert set(held.values()) == {(file.read_bytes(), tuple(sorted({str(i), "3"}))) for i, file in enumerate(files)}
    assert sorted(held) == ["000000000", "000000001", "000000002"]


def test_order_is_a_function_of_names_and_seed_alone(tmp_path):
    source = tree(tmp_path)

    def order(to: str, seed: int) -> list[str]:
        prepare(PreparationSpec(source, "train", seed=seed), tmp_path / to, 2)
        reader = ShardReader(tmp_path / to / "train", "full")
        return [reader.read(index)[0] for index in range(len(reader))]

    first, again, other = order("a", 0), order("b", 0), order("c", 1)
    assert first == again != other
    assert sorted(first) == sorted(other) == sorted(TRAIN) != first


def test_images_larger_than_max_side_are_made_smaller_and_no_others_are_touched(tmp_path):
    files = {
        "n1/exact.jpg": miniature.jpeg(0, 32, 20), "n1/small.png": miniature.png(1, 5, 5),
        "n1/small.JPEG": miniature.cmyk(2, 20, 32), "n1/wide.jpg": miniature.jpeg(3, 16, 64),
        "n1/high.png": miniature.png(4, 99, 33), "n1/cmyk.JPEG": miniature.cmyk(5, 64, 64),
        "n1/line.png": miniature.png(6, 1, 1000),
    }  # fmt: skip
    sizes = {"n1/wide.jpg": (8, 32), "n1/high.png": (32, 11), "n1/cmyk.JPEG": (32, 32), "n1/line.png": (1, 32)}
    source = f"folder:{miniature.make_tree(tmp_path / 'tree', files)}"
    held = {name: data for name, (data, _) in make(source, tmp_path / "to", max_side=32, quality=90).items()}
    for name, content in files.items():
        if name not in sizes:
            assert held[name] == content
            continue
        assert held[name][:2] == JPEG and decode(held[name], 2**26).shape[:2] == sizes[name]
        whole = decode(content, 2**26)
        expected = cv2.resize(whole, sizes[name][::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(decode(held[name], 2**26).astype(int) - expected).mean() < 8
    assert Manifest(tmp_path / "to/train").content["reencoded"] == 4
    finer = {name: data for name, (data, _) in make(source, tmp_path / "finer", max_side=32, quality=100).items()}
    assert len(finer["n1/wide.jpg"]) > len(held["n1/wide.jpg"])
