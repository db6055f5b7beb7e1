"""Preparation: the official layouts, every image once with its bytes, and the same folder however often it was killed."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from preparation import miniature
from preparation.miniature import CLASSES

from mixer_jax.__main__ import main
from mixer_jax.app import DONE, TO_MEND
from mixer_jax.config import UserError, dataset
from mixer_jax.data import images
from mixer_jax.data.manifest import Manifest
from mixer_jax.data.shards import ShardReader
from mixer_jax.data.sources import open_source
from mixer_jax.preparation import prepare as prepare_module
from mixer_jax.preparation.inputs import Recipe
from mixer_jax.preparation.prepare import prepare

TRAIN = miniature.train_images()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(source: str, to: Path, split: str = "train", threads: int = 2, **options) -> dict[str, tuple[bytes, tuple[str, ...]]]:
    """What a preparation's shards hold: name -> (image, class names)."""
    prepare(Recipe(source, split, **options), to, threads)
    reader = ShardReader(to / split, "full")
    records = [reader.read(index) for index in range(len(reader))]
    held = {name: (image, tuple(reader.manifest.class_names[label] for label in labels)) for name, labels, image in records}
    assert len(held) == len(records)
    assert not (to / split / ".preparing").exists()
    return held


def by_class(images_by_name: dict[str, bytes]) -> dict[str, tuple[bytes, tuple[str, ...]]]:
    return {name: (data, (name.split("/")[-2],)) for name, data in images_by_name.items()}


def tree(root: Path) -> str:
    return f"folder:{miniature.make_tree(root / 'tree', TRAIN)}"


def tar_of_tars(root: Path) -> str:
    return f"tars:{miniature.make_tar_of_tars(root / 'ILSVRC2012_img_train.tar', TRAIN)}"


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
    assert shards[0] == shards[1] and len(shards[0]) == 8


def test_what_is_prepared_decodes_as_the_folder_does(tmp_path):
    source = tree(tmp_path)
    make(source, tmp_path / "to")
    prepared, folder = open_source(dataset(f"records:{tmp_path / 'to'}")), open_source(dataset(source, ""))
    shown = [
        sorted((record.labels, images.decode(record.image, 2**26).tobytes()) for record in map(one.__getitem__, range(len(one))))
        for one in (prepared, folder)
    ]
    assert shown[0] == shown[1]


def test_only_what_lies_under_a_folder_is_taken(tmp_path):
    inside = {f"ILSVRC/Data/CLS-LOC/train/{name}": data for name, data in TRAIN.items()}
    outside = {"ILSVRC/Data/CLS-LOC/test/a.JPEG": miniature.jpeg(1), "ILSVRC/x.xml": b""}
    file = miniature.make_zip(tmp_path / "x.zip", inside | outside)
    assert make(f"zip:{file}", tmp_path / "to", under="ILSVRC/Data/CLS-LOC/train") == by_class(inside)


VALIDATION = {f"ILSVRC2012_val_{number:08d}.JPEG": miniature.jpeg(number) for number in range(1, 7)}
IDS = [CLASSES[2], CLASSES[0], CLASSES[1], "n99999999"]  # of ILSVRC2012_IDs 1 to 4: another order, and one that is no class
TRUTH = [2, 3, 1, 1, 2, 3]


def development_kit(root: Path) -> dict:
    return {"labels": str(miniature.make_development_kit(root / "ILSVRC2012_devkit_t12.tar.gz", IDS, TRUTH))}


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
        prepare(Recipe(source, "train", seed=seed), tmp_path / to, 2)
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
        assert held[name][:2] == images.JPEG and images.decode(held[name], 2**26).shape[:2] == sizes[name]
        whole = images.decode(content, 2**26)
        expected = cv2.resize(whole, sizes[name][::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(images.decode(held[name], 2**26).astype(int) - expected).mean() < 8
    assert Manifest(tmp_path / "to/train").content["reencoded"] == 4
    finer = {name: data for name, (data, _) in make(source, tmp_path / "finer", max_side=32, quality=100).items()}
    assert len(finer["n1/wide.jpg"]) > len(held["n1/wide.jpg"])


def huge_png() -> bytes:
    content = bytearray(miniature.png(0))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    return bytes(content)


BAD = {
    f"{CLASSES[0]}/cut.JPEG": (miniature.jpeg(0, 64, 64)[:200], "damaged JPEG"),
    f"{CLASSES[1]}/text.JPEG": (b"<html>not found</html>", "neither JPEG nor PNG"),
    f"{CLASSES[1]}/empty.JPEG": (b"", "empty"),
    f"{CLASSES[2]}/gif.png": (b"GIF89a" + bytes(100), "neither JPEG nor PNG"),
    f"{CLASSES[2]}/huge.png": (huge_png(), "30000 x 30000 pixels"),
}


def test_bad_images_are_all_named_at_once_or_left_out_and_listed(tmp_path, capsys):
    source = f"folder:{miniature.make_tree(tmp_path / 'tree', TRAIN | {name: data for name, (data, _) in BAD.items()})}"
    with pytest.raises(UserError, match="5 bad images:") as error:
        make(source, tmp_path / "to", records_per_shard=3)
    for name, (_, why) in BAD.items():
        assert any(name in line and why in line for line in str(error.value).splitlines())
    assert "--skip-bad" in str(error.value)
    assert make(source, tmp_path / "to", records_per_shard=3, skip_bad=True) == by_class(TRAIN)
    manifest = Manifest(tmp_path / "to/train")
    assert manifest.content["left_out"] == 5
    assert {name for shard in manifest.shards for name, _ in shard.left_out} == set(BAD)
    assert "5 bad images left out" in manifest.summary()


def test_a_class_whose_images_are_all_bad_is_refused(tmp_path):
    source = f"folder:{miniature.make_tree(tmp_path / 'tree', TRAIN | {'n99/x.jpg': b'bad'})}"
    with pytest.raises(UserError, match="1 of 4 classes have no image, the first is 'n99'"):
        make(source, tmp_path / "to", skip_bad=True)


KILLED = """
import os, sys, threading
from pathlib import Path
from mixer_jax.data import shards
from mixer_jax.preparation.inputs import Recipe
from mixer_jax.preparation.prepare import prepare

source, to, moments = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
lock = threading.Lock()

def die_at(moment):
    "kill -9 of this process just before or after the n-th image is written, or file is renamed, forced to the disk or removed."
    kind, when, number = moment.split(":")
    module, name = (shards if kind == "pack" else os), kind
    real, count = getattr(module, name), [0]
    def counted(*arguments, **options):
        with lock:
            count[0] += 1
            last = count[0] == int(number)
        if last and when == "before":
            os.kill(os.getpid(), 9)
        result = real(*arguments, **options)
        if last:
            os.kill(os.getpid(), 9)
        return result
    setattr(module, name, counted)

def child(work):
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    return os.waitpid(process, 0)[1]

for number, moment in enumerate(moments):
    folder = to / str(number)
    def run(killed):
        if killed:
            die_at(moment)
        prepare(Recipe(source, "train", records_per_shard=5), folder, 3)
    status = [child(lambda: run(True))]
    done = {file.name: file.stat().st_mtime_ns for file in folder.glob("train/*.array_record")}
    rows = {file.stem for file in folder.glob("train/.preparing/shard-*.json")}
    status.append(child(lambda: run(False)))
    kept = sum(file.stat().st_mtime_ns == done.get(file.name) for file in folder.glob("train/*.array_record"))
    print(moment, *status, len(rows), kept)
"""
MOMENTS = [f"replace:{when}:{number}" for when in ("before", "after") for number in range(1, 9)]
MOMENTS += [
    "fsync:before:1",
    "fsync:after:2",
    "fsync:before:3",
    "unlink:before:1",
    "unlink:after:2",
    "pack:after:2",
    "pack:before:9",
]


def test_a_killed_preparation_goes_on_and_ends_bitwise_the_same(tmp_path):
    source = tar_of_tars(tmp_path)
    make(source, tmp_path / "whole", records_per_shard=5)
    command = [sys.executable, "-c", KILLED, source, str(tmp_path / "killed"), *MOMENTS]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    whole = miniature.folder_bytes(tmp_path / "whole")
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines] == MOMENTS
    for number, (moment, killed, resumed, rows, kept) in enumerate(lines):
        assert (killed, resumed) == ("9", "0"), moment
        assert miniature.folder_bytes(tmp_path / "killed" / str(number)) == whole, moment
        assert int(kept) >= int(rows), f"{moment}: {rows} shards had their row, {kept} were kept"


@pytest.mark.parametrize("damage", ["missing", "altered", "truncated"])
def test_the_same_command_mends_a_finished_split_and_leaves_the_whole_shards(tmp_path, damage):
    source = tree(tmp_path)
    make(source, tmp_path / "to", records_per_shard=3)
    before = miniature.folder_bytes(tmp_path / "to")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "to/train").glob("*.array_record")}
    victim = sorted(times)[2]
    if damage == "missing":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[300] ^= 1
        victim.write_bytes(content if damage == "altered" else content[:-1])
    with pytest.raises(UserError, match=victim.name):
        open_source(dataset(f"records:{tmp_path / 'to'}"))
    make(source, tmp_path / "to", records_per_shard=3)
    assert miniature.folder_bytes(tmp_path / "to") == before
    assert {file for file in times if file.stat().st_mtime_ns != times[file]} == {victim}


def test_a_folder_with_another_split_is_refused_and_left_as_it_is(tmp_path):
    source = tree(tmp_path)
    make(source, tmp_path / "to")
    before = miniature.folder_bytes(tmp_path / "to")
    (tmp_path / "tree" / CLASSES[0] / "new.jpg").write_bytes(miniature.jpeg(99))
    with pytest.raises(UserError, match=r"holds another split .*inputs_sha256.*Choose another --to"):
        make(source, tmp_path / "to")
    assert miniature.folder_bytes(tmp_path / "to") == before


def test_an_unfinished_split_is_refused_with_its_command(tmp_path):
    source = f"folder:{miniature.make_tree(tmp_path / 'tree', TRAIN | {'n99/x.jpg': b'bad'})}"
    with pytest.raises(UserError, match="1 bad images"):
        make(source, tmp_path / "to")
    with pytest.raises(UserError, match=r"not prepared to its end.*python -m mixer_jax prepare --from folder:.*--to "):
        open_source(dataset(f"records:{tmp_path / 'to'}"))


def test_a_link_that_leads_back_is_refused(tmp_path):
    source = tree(tmp_path)
    (tmp_path / "tree" / CLASSES[0] / "again").symlink_to(tmp_path / "tree")
    with pytest.raises(UserError, match="reached twice, through a link"):
        make(source, tmp_path / "to")


def test_a_full_disk_is_said_in_words_and_the_same_command_goes_on(tmp_path, monkeypatch):
    source = tree(tmp_path)
    make(source, tmp_path / "whole", records_per_shard=4)
    real, calls = prepare_module.os.replace, []

    def replace(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module.os, "replace", replace)
        with pytest.raises(UserError, match=r"No space left on device.*run the command again"):
            make(source, tmp_path / "to", records_per_shard=4)
    make(source, tmp_path / "to", records_per_shard=4)
    assert miniature.folder_bytes(tmp_path / "to") == miniature.folder_bytes(tmp_path / "whole")


def test_a_name_with_spaces_is_quoted_in_the_command(tmp_path):
    assert (
        Recipe("folder:my photos", "train", skip_bad=True)
        .command()
        .endswith("prepare --from 'folder:my photos' --split train --skip-bad")
    )


def test_two_preparations_of_one_folder_do_not_meet(tmp_path):
    with prepare_module._alone(tmp_path / "to/train"), pytest.raises(UserError, match="Another process is preparing"):
        make(tree(tmp_path), tmp_path / "to")


def file_of(root: Path, text: str) -> str:
    (root / "file.txt").write_text(text)
    return str(root / "file.txt")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("tree", {"split": "a/b"}, "--split 'a/b'"),
        ("tree", {"quality": 50}, "give --max-side too"),
        ("tree", {"records_per_shard": 0}, "--records-per-shard 0"),
        ("nothing:x", {}, "must be folder:..., tars:..., tar:..., zip:..., webdataset:..., tfds:..."),
        ("folder:nowhere", {}, "no folder nowhere"),
        ("tar:nowhere.tar", {}, "no file nowhere.tar"),
        ("zip:nowhere.zip", {}, "no file nowhere.zip"),
        ("webdataset:nowhere/*", {}, "No file matches"),
        ("tree", {"under": CLASSES[0]}, "lies in no folder.*--labels"),
        ("tree", {"classes": "nowhere.txt"}, "no file nowhere.txt"),
        ("tree", {"classes_text": "a\nb\na"}, "each once: mend 'a'"),
        ("tree", {"classes_text": "n01440764"}, "'n02084071' is not in --classes"),
        ("tree", {"classes_text": "\n".join([*CLASSES, "n9"])}, "1 of 4 classes have no image, the first is 'n9'"),
        ("tree", {"labels_text": "1\n2\n"}, "give also --synsets meta.mat"),
        ("tree", {"labels_text": "a.jpg 1\n,\n"}, "has no line for n01440764/n01440764_0.JPEG"),
        ("tree", {"labels_text": "a.jpg 1\na.jpg 2"}, "more than one line for a.jpg"),
        (
            "tree",
            {"labels_text": "".join(f"{name} {i}\n" for i, name in enumerate([*TRAIN, "b.jpg"]))},
            "no image is named b.jpg",
        ),
        ("tree", {"labels_text": "".join(f"{name} 3\n" for name in TRAIN)}, "3 of 4 classes have no image, the first is '0'"),
    ],
)
def test_what_cannot_be_prepared_is_refused_in_words(tmp_path, source, options, message):
    source = tree(tmp_path) if source == "tree" else source
    options = {
        key.removesuffix("_text"): file_of(tmp_path, value) if key.endswith("_text") else value for key, value in options.items()
    }
    with pytest.raises(UserError, match=message):
        make(source, tmp_path / "to", **options)
    assert not (tmp_path / "to").exists()


def test_a_label_out_of_range_is_named(tmp_path):
    labels = file_of(tmp_path, "".join(f"{name} {3 if name == 'n02084071/n02084071_2.JPEG' else 0}\n" for name in TRAIN))
    (tmp_path / "classes.txt").write_text("a\nb\nc")
    with pytest.raises(UserError, match="has the label '3': it must be one of the 3 classes or a number below"):
        make(tree(tmp_path), tmp_path / "to", labels=labels, classes=str(tmp_path / "classes.txt"))


def test_a_huge_number_of_a_class_makes_no_huge_list(tmp_path):
    labels = file_of(tmp_path, "".join(f"{name} {10**8}\n" for name in TRAIN))
    with pytest.raises(UserError, match="has the label 100000000: without --classes numbers must be below"):
        make(tree(tmp_path), tmp_path / "to", labels=labels)


def test_a_damaged_development_kit_is_refused(tmp_path):
    tar = miniature.make_tar(tmp_path / "val.tar", VALIDATION)
    kit = Path(development_kit(tmp_path)["labels"])
    content = bytearray(kit.read_bytes())
    content[len(content) // 2] ^= 255
    for damaged in (content, content[:100], b"no gzip"):
        kit.write_bytes(damaged)
        with pytest.raises(UserError, match=r"devkit_t12\.tar\.gz is damaged"):
            make(f"tar:{tar}", tmp_path / "to", "validation", labels=str(kit))


def test_a_development_kit_that_unpacks_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("mixer_jax.preparation.archives.MAX_DEVKIT_BYTES", 1000)
    tar = miniature.make_tar(tmp_path / "val.tar", VALIDATION)
    with pytest.raises(UserError, match="unpacks to more than 1000 bytes"):
        make(f"tar:{tar}", tmp_path / "to", "validation", **development_kit(tmp_path))


def test_ground_truth_of_another_set_is_refused(tmp_path):
    tar = miniature.make_tar(tmp_path / "val.tar", dict(list(VALIDATION.items())[:-1]))
    with pytest.raises(UserError, match="6 labels for 5 images"):
        make(f"tar:{tar}", tmp_path / "to", "validation", **development_kit(tmp_path))


def test_an_image_that_is_twice_in_an_archive_is_refused(tmp_path):
    one = miniature.tar_bytes({"n1/a.jpg": miniature.jpeg(0)})
    (tmp_path / "x.tar").write_bytes(doubled(one))
    with pytest.raises(UserError, match=r"holds 'n1/a\.jpg' twice"):
        make(f"tar:{tmp_path / 'x.tar'}", tmp_path / "to")


def doubled(tar: bytes) -> bytes:
    """The same member once more, as `tar -r` appends it."""
    size = int(tar[124:135], 8)
    member = tar[: 512 + -(-size // 512) * 512]
    return member + member + bytes(1024)


def test_an_image_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mixer_jax.preparation.archives.MAX_IMAGE_BYTES", 100)
    with pytest.raises(UserError, match="is larger than 100 bytes"):
        make(tree(tmp_path), tmp_path / "to")


def test_the_command_prepares_verifies_and_mends(tmp_path, monkeypatch, capsys):
    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", "prepare", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    command = ["--from", tree(tmp_path), "--to", str(tmp_path / "to"), "--records-per-shard=4"]
    code, out = call(*command)
    assert code == DONE and "15 images of 3 classes in 4 shards" in out
    code, out = call("--verify", str(tmp_path / "to"))
    assert code == DONE and "to/train: 4 shards are whole" in out
    made = json.loads((tmp_path / "to/train/manifest.json").read_text())["made"]["command"]
    os.unlink(tmp_path / "to/train/train-00001-of-00004.array_record")
    code, out = call("--verify", str(tmp_path / "to"))
    assert code == TO_MEND and "train-00001-of-00004.array_record is missing" in out and f"{made} --to {tmp_path / 'to'}" in out
    assert call(*made.split()[4:], "--to", str(tmp_path / "to"))[0] == DONE
    assert call("--verify", str(tmp_path / "to/train"))[0] == DONE
    assert call("--from", tree(tmp_path)) == (
        TO_MEND,
        "error: --to DIR is missing: the folder to make, whose sub-folder SPLIT holds the shards.\n",
    )
