"""Miniatures of the official downloads become batches, and every command of docs/data.md that prepares them works."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from ml_collections import ConfigDict
from preparation import downloads, miniature
from preparation.downloads import CLASSES, FLOWERS, FLOWERS_LABELS, PETS, PETS_CLASSES, REAL
from preparation.preparing import IDS, TRAIN, TRUTH, VALIDATION, by_class, make
from test_documentation import PAGES, commands_of, wrapped
from tiny_config import loader_config

from mixer_jax.__main__ import main
from mixer_jax.config import dataset
from mixer_jax.data.images.augment import eval_transform
from mixer_jax.data.images.decode import decode
from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.endings import DONE
from mixer_jax.errors import UserError

VALIDATION_CLASSES = {name: (IDS[number - 1],) for name, number in zip(sorted(VALIDATION), TRUTH, strict=True)}


def labels_of(held: dict[str, tuple[bytes, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    return {name: labels for name, (_, labels) in held.items()}


def test_imagenet_comes_from_kaggle_too(tmp_path):
    downloads.imagenet_at_kaggle(tmp_path)
    file, inside = tmp_path / "imagenet-object-localization-challenge.zip", "ILSVRC/Data/CLS-LOC"
    train = make(f"zip:{file}", tmp_path / "to", under=f"{inside}/train")
    assert train == {f"{inside}/train/{name}": held for name, held in by_class(TRAIN).items()}
    shutil.unpack_archive(file, tmp_path / "unpacked")
    options = {"labels": str(tmp_path / "unpacked/LOC_val_solution.csv"), "classes": str(tmp_path / "to/train/manifest.json")}
    held = make(f"zip:{file}", tmp_path / "to", "validation", under=f"{inside}/val", **options)
    assert labels_of(held) == {f"{inside}/val/{name}": labels for name, labels in VALIDATION_CLASSES.items()}
    assert labels_of(make(f"folder:{tmp_path}/unpacked/{inside}/val", tmp_path / "to", "folder", **options)) == VALIDATION_CLASSES


def test_imagenet_real_is_a_split_of_sets_some_of_them_empty(tmp_path):
    downloads.imagenet(tmp_path)
    make(f"tars:{tmp_path}/ILSVRC2012_img_train.tar", tmp_path / "to")
    options = {"labels": str(tmp_path / "real.json"), "classes": str(tmp_path / "to/train/manifest.json")}
    held = make(f"tar:{tmp_path}/ILSVRC2012_img_val.tar", tmp_path / "to", "real", **options)
    expected = zip(sorted(VALIDATION), REAL, strict=True)
    assert labels_of(held) == {name: tuple(CLASSES[label] for label in labels) for name, labels in expected}
    source = open_source(dataset(f"records:{tmp_path}/to", "real"))
    assert (source.max_labels, source.num_classes) == (2, 3)
    batch = next(eval_batches(source, eval_transform("small", 0, 8), loader_config(), batch_size=8, batch_indices=np.arange(8)))
    counted = (batch["mask"] > 0) & np.any(batch["labels"] >= 0, axis=1)  # evaluation/classification.py counts these examples.
    assert counted.sum() == sum(map(bool, REAL)) == 4


@pytest.mark.parametrize("release", ["fall11_whole.tar", "winter21_whole.tar.gz"])
def test_imagenet21k_comes_in_one_tar_which_must_not_be_compressed(tmp_path, release):
    downloads.imagenet21k(tmp_path)
    source = f"tars:{tmp_path / release}"
    if release.endswith(".gz"):
        with pytest.raises(UserError, match="is compressed, and images are read by their offset") as error:
            make(source, tmp_path / "to", skip_unreadable=True)
        unpack, command = str(error.value).splitlines()[1:]
        subprocess.run(shlex.split(unpack), check=True)
        source = shlex.split(command)[shlex.split(command).index("--from") + 1]
    held = make(source, tmp_path / "to", skip_unreadable=True)
    assert len(held) == 12 and set(labels_of(held).values()) == {(name,) for name in CLASSES}
    assert all(Path(name).parent.name == labels[0] for name, labels in labels_of(held).items())
    assert Manifest(tmp_path / "to/train").content["left_out"] == 1


def test_a_compressed_tar_under_another_name_comes_with_a_command_that_unpacks_it_too(tmp_path):
    downloads.imagenet21k(tmp_path)
    file = (tmp_path / "winter21_whole.tar.gz").rename(tmp_path / "all 21k.tar")
    with pytest.raises(UserError, match="is compressed") as error:
        make(f"tars:{file}", tmp_path / "to")
    subprocess.run(["sh", "-c", str(error.value).splitlines()[1]], check=True)
    assert len(make(f"tars:{file}.tar", tmp_path / "to", skip_unreadable=True)) == 12


@pytest.mark.parametrize(
    ("classes", "split", "count"), [(10, "train", 50), (10, "test", 10), (100, "train", 100), (100, "test", 100)]
)
def test_cifar_is_read_without_loss_from_the_binary_archives(tmp_path, classes, split, count):
    downloads.cifar(tmp_path)
    held = make(f"cifar:{tmp_path}/cifar-{classes}-binary.tar.gz", tmp_path / "to", split)
    assert len(held) == count and sorted(held)[-1] == f"{split}_{count - 1:05d}.png"
    for name, (png, labels) in held.items():
        number = int(name[-9:-4])
        assert labels == ((f"class{number % 10}",) if classes == 10 else (f"fine{number}",))
        pixels = downloads.cifar_record(50 + number if (classes, split) == (10, "test") else number)
        assert np.array_equal(decode(png, 2**26), np.frombuffer(pixels, np.uint8).reshape(3, 32, 32).transpose(1, 2, 0))
    assert Manifest(tmp_path / "to" / split).content["images_of_class"] == [count // classes] * classes


@pytest.mark.parametrize(
    ("members", "split", "message"),
    [
        ({"cifar-10-batches-py/data_batch_1": b""}, "train", "x-binary.tar.gz from the same page"),
        ({"cifar-100-python/train": b"", "cifar-100-python/meta": b""}, "train", "pickles, which run code"),
        ({"batches.meta.txt": b"a", "test_batch.bin": bytes(3073)}, "train", "must be cifar-10-binary.tar.gz or cifar-100"),
        ({"batches.meta.txt": b"a", "test_batch.bin": bytes(3072)}, "test", "3072 bytes, not records of 3073"),
        ({"batches.meta.txt": b"a", "test_batch.bin": b"\1" + bytes(3072)}, "test", "has the label 1, and 1 classes"),
        ({"photo.jpg": b""}, "test", "must be cifar-10-binary"),
        ({}, "validation", "CIFAR has train and test"),
    ],
)
def test_an_archive_that_is_not_cifars_is_refused(tmp_path, members, split, message):
    file = tmp_path / "x-python.tar.gz"
    file.write_bytes(downloads.gzip.compress(miniature.tar_bytes(members)))
    with pytest.raises(UserError, match=message):
        make(f"cifar:{file}", tmp_path / "to", split)


def unpacked(root: Path, *archives: str) -> Path:
    for archive in archives:
        subprocess.run(["tar", "xf", archive], cwd=root, check=True)
    return root


def test_pets_are_split_by_their_lists_and_numbered_as_there(tmp_path):
    downloads.pets(tmp_path)
    folder = unpacked(tmp_path, "images.tar.gz", "annotations.tar.gz")
    for split, names in PETS.items():
        held = make(f"folder:{folder}/images", tmp_path / "to", split, labels=f"{folder}/annotations/{split}.txt")
        assert labels_of(held) == {f"{name}.jpg": (name.rpartition("_")[0],) for name in names}
        assert all(held[name][0] == (folder / "images" / name).read_bytes() for name in held)
        assert Manifest(tmp_path / "to" / split).class_names == PETS_CLASSES
        assert Manifest(tmp_path / "to" / split).content["made"]["ignored_files"] == 10 - len(names)


@pytest.mark.parametrize(
    ("split", "sets"), [("train", ["trnid"]), ("validation", ["valid"]), ("trainval", ["trnid", "valid"]), ("test", ["tstid"])]
)
def test_flowers_are_split_by_setid(tmp_path, split, sets):
    downloads.flowers(tmp_path)
    folder = unpacked(tmp_path, "102flowers.tgz")
    held = make(f"folder:{folder}/jpg", tmp_path / "to", split, labels=f"{folder}/imagelabels.mat")
    numbers = [number for name in sets for number in FLOWERS[name]]
    assert labels_of(held) == {f"image_{number:05d}.jpg": (str(FLOWERS_LABELS[number - 1]),) for number in numbers}
    assert Manifest(tmp_path / "to" / split).class_names == ("1", "2", "3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("real.json", b"[[0], [1]]", "2 labels for 9 images"),
        ("real.json", b'{"a": 1}', "not ReaL's real.json"),
        ("real.json", b"[[0", "not ReaL's real.json"),
        ("real.json", json.dumps([[1.7]] * 9).encode(), "not ReaL's real.json"),
        ("real.json", json.dumps(["12"] * 9).encode(), "not ReaL's real.json"),
        ("real.json", json.dumps([[True]] * 9).encode(), "not ReaL's real.json"),
        ("real.json", json.dumps([[-1]] * 9).encode(), "not ReaL's real.json"),
        ("real.json", b"[" * 100_000, "not ReaL's real.json"),
        ("LOC_val_solution.csv", b"ImageId,PredictionString\na,n1 1 2 3 4\n", "no line for image_00001.jpg"),
        ("trainval.txt", b"Abyssinian_1 1 1 1\n", "no image is named Abyssinian_1.jpg"),
        ("imagelabels.mat", b"MATLAB", "A .mat file is damaged"),
        ("imagelabels.mat", downloads.mat({"labels": [[1, 2]]}), "not those of Flowers-102"),
        ("imagelabels.mat", downloads.mat({"other": [[1, 2]]}), "not those of Flowers-102"),
        ("imagelabels.mat", downloads.mat({"labels": [[2.7] * 9]}), "not those of Flowers-102"),
        ("imagelabels.mat", downloads.mat({"labels": [[0] * 9]}), "not those of Flowers-102"),
        ("imagelabels.mat", downloads.mat({"labels": [[300_000_000] * 9]}), "class 300000000 of 9 images"),
        ("imagelabels.mat", downloads.mat({"labels": [[float("nan")] * 9]}), "not those of Flowers-102"),
    ],
)
def test_a_file_of_labels_that_lies_is_refused_in_words(tmp_path, name, content, message):
    downloads.flowers(tmp_path)
    folder = unpacked(tmp_path, "102flowers.tgz")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        make(f"folder:{folder}/jpg", tmp_path / "to", labels=str(tmp_path / name))
    with pytest.raises(UserError, match=r"--split other: with .* one of train, validation, trainval, test"):
        make(f"folder:{folder}/jpg", tmp_path / "to", "other", labels=str(tmp_path / "imagelabels.mat"))


PREPARE = ["python", "-m", "mixer_jax", "prepare"]


def config_of(command: list[str]) -> ConfigDict:
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in command[2:])
    file, _, row = flags.pop("config").partition(":")
    config = runpy.run_path(str(ROOT / file))["get_config"](row)
    options = {name.removeprefix("config."): value for name, value in flags.items()}
    places = {name: value for name, value in options.items() if name.endswith((".source", ".split", ".local_copy"))}
    config.update_from_flattened_dict(places)
    return config


def test_every_command_of_the_docs_that_unpacks_or_prepares_does_so_and_runs_find_what_it_made(tmp_path, monkeypatch, cloud):
    """The commands run in the order of docs/data.md, in a folder with miniatures of the official downloads."""
    downloads.all_of_them(tmp_path)
    miniature.make_tree(tmp_path / "imagenet21k", TRAIN)  # The tars are unpacked already.
    monkeypatch.chdir(tmp_path)
    expected = opened = 0
    for command in filter(None, commands_of(PAGES["data"])):
        if command[:4] == PREPARE:
            monkeypatch.setattr(sys, "argv", ["mixer_jax", *command[3:]])
            assert main() == DONE, command
        elif command[0] == "sbatch":
            last = re.match(r"--array=1-(\d+)$", command[1])
            for task in range(1, int(last[1]) + 1 if last else 2):
                words = [word.replace("$SLURM_ARRAY_TASK_ID", str(task)) for word in wrapped(command)[3:]]
                monkeypatch.setattr(sys, "argv", ["mixer_jax", *words])
                assert main() == DONE, words
        elif command[0] == "gcloud":
            *_, source, url = command
            for file in filter(Path.is_file, Path(source).rglob("*")):
                bucket, _, folder = url.removeprefix("gs://").partition("/")
                cloud.objects[bucket, f"{folder}/{file.relative_to(source)}"] = file.read_bytes()
        elif command[0] == "unzip":  # Not every machine has unzip.
            zipfile.ZipFile(command[1]).extract(command[2])
        elif command[0] in ("tar", "gunzip"):
            subprocess.run(command, check=True)
        elif any(word.startswith("--config=") for word in command):
            config = config_of(command)
            data = [part for one in config.evals.values() for part in one.values() if isinstance(part, ConfigDict)]
            made = [part for part in [config.data, *data] if "source" in part and part.source.startswith("records:")]
            opened += sum(decode(open_source(part)[0].image, 2**26).ndim == 3 for part in made)
            expected += sum("records:" in word for word in command)
    assert opened == expected
