"""Miniatures of what the official sites hand out, by the names that they have there. No test stands here."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
from preparation import miniature
from preparation.miniature import CLASSES, jpeg, png
from preparation.preparing import IDS, TRAIN, TRUTH, VALIDATION
from scipy.io import savemat

# What the lists of Pets say (its classes are numbered without regard to capitals) and what lies beside it in its folder.
PETS = {
    "trainval": ["Abyssinian_100", "beagle_116", "Bengal_7", "american_bulldog_1"],
    "test": ["american_bulldog_2", "Bengal_1"],
}
PETS |= {"test": [*PETS["test"], "beagle_3", "Abyssinian_5"]}
PETS_CLASSES = ("Abyssinian", "american_bulldog", "beagle", "Bengal")
FLOWERS = {"trnid": [2, 5, 7], "valid": [1, 6, 8], "tstid": [3, 4, 9]}
FLOWERS_LABELS = [1, 2, 3, 1, 3, 2, 1, 3, 2]
REAL = [[0], [], [1, 2], [2], [], [0, 1]]  # for VALIDATION


def imagenet(root: Path) -> None:
    miniature.make_tar_of_tars(root / "ILSVRC2012_img_train.tar", TRAIN)
    miniature.make_tar(root / "ILSVRC2012_img_val.tar", dict(reversed(VALIDATION.items())))
    miniature.make_development_kit(root / "ILSVRC2012_devkit_t12.tar.gz", IDS, TRUTH)
    (root / "real.json").write_text(json.dumps(REAL))


def imagenet_at_kaggle(root: Path) -> None:
    folder = "ILSVRC/Data/CLS-LOC"
    ids = [IDS[number - 1] for number in TRUTH]
    rows = [f"{name.removesuffix('.JPEG')},{wnid} 1 2 3 4 {wnid} 0 0 9 9 " for name, wnid in zip(VALIDATION, ids, strict=True)]
    files = {f"{folder}/train/{name}": content for name, content in TRAIN.items()}
    files |= {f"{folder}/val/{name}": content for name, content in VALIDATION.items()}
    files |= {f"{folder}/test/ILSVRC2012_test_00000001.JPEG": jpeg(0), "ILSVRC/Annotations/CLS-LOC/val/a.xml": b"<annotation/>"}
    files["LOC_val_solution.csv"] = "\n".join(["ImageId,PredictionString", *rows[::-1]]).encode()
    miniature.make_zip(root / "imagenet-object-localization-challenge.zip", files)


def imagenet21k(root: Path) -> None:
    """With a page in the place of an image, as there are."""
    tars = {name: {} for name in CLASSES}
    for number, name in enumerate(CLASSES * 4):
        tars[name][f"{name}_{number}.JPEG"] = jpeg(number)
    tars[CLASSES[0]][f"{CLASSES[0]}_99.JPEG"] = b"<!DOCTYPE html>"
    files = {f"{name}.tar": miniature.tar_bytes(images) for name, images in tars.items()}
    miniature.make_tar(root / "fall11_whole.tar", files)
    winter = miniature.tar_bytes({f"winter21_whole/{name}": content for name, content in files.items()})
    (root / "winter21_whole.tar.gz").write_bytes(gzip.compress(winter))


def cifar_record(number: int, *labels: int) -> bytes:
    return bytes(labels) + np.random.default_rng(number).integers(0, 256, 3072, np.uint8).tobytes()


def cifar(root: Path) -> None:
    batches = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    ten = {
        f"cifar-10-batches-bin/{name}.bin": b"".join(cifar_record(10 * place + label, label) for label in range(10))
        for place, name in enumerate(batches)
    }
    names = "\n".join(f"class{number}" for number in range(10)) + "\n\n"
    ten |= {"cifar-10-batches-bin/batches.meta.txt": names.encode(), "cifar-10-batches-bin/readme.html": b""}
    (root / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(miniature.tar_bytes(ten)))
    hundred = {
        f"cifar-100-binary/{name}.bin": b"".join(cifar_record(label, label // 5, label) for label in range(100))
        for name in ("train", "test")
    }
    for name, count in (("coarse", 20), ("fine", 100)):
        text = "\n".join(f"{name}{number}" for number in range(count)) + "\n"
        hundred[f"cifar-100-binary/{name}_label_names.txt"] = text.encode()
    (root / "cifar-100-binary.tar.gz").write_bytes(gzip.compress(miniature.tar_bytes(hundred)))


def pets(root: Path) -> None:
    """With PNGs named .jpg, images that are in neither list, one of them a GIF, and a file of MATLAB's."""
    images = {f"images/{name}.jpg": jpeg(number) for number, name in enumerate(PETS["trainval"] + PETS["test"])}
    images |= {"images/Abyssinian_5.jpg": png(0), "images/Abyssinian_34.jpg": b"GIF89a", "images/Abyssinian_100.mat": b"MATLAB"}
    (root / "images.tar.gz").write_bytes(gzip.compress(miniature.tar_bytes(images)))
    lists = {}
    for split, names in PETS.items():
        class_ids = [PETS_CLASSES.index(name.rpartition("_")[0]) + 1 for name in names]
        lines = [f"{name} {class_id} {1 + name[0].islower()} 1" for name, class_id in zip(names, class_ids, strict=True)]
        lists[f"annotations/{split}.txt"] = "\n".join(lines).encode()
    lists |= {"annotations/list.txt": b"#Image CLASS-ID SPECIES BREED ID", "annotations/trimaps/Abyssinian_100.png": png(1)}
    (root / "annotations.tar.gz").write_bytes(gzip.compress(miniature.tar_bytes(lists)))


def flowers(root: Path) -> None:
    images = {f"jpg/image_{number:05d}.jpg": jpeg(number) for number in range(1, 10)}
    (root / "102flowers.tgz").write_bytes(gzip.compress(miniature.tar_bytes(images)))
    savemat(root / "imagelabels.mat", {"labels": np.array([FLOWERS_LABELS], np.uint8)})
    savemat(root / "setid.mat", {name: np.array([numbers], np.uint16) for name, numbers in FLOWERS.items()})


def webdataset(root: Path) -> None:
    (root / "web").mkdir()
    miniature.make_tar(root / "web/0.tar", {"0.jpg": jpeg(0), "0.cls": b"0", "1.jpg": jpeg(1), "1.cls": b"1"})


def own_images(root: Path) -> None:
    """With what cameras, notebooks and file managers leave behind."""
    names = ["train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/dog/4.jpg", "train/.ipynb_checkpoints/1.jpg"]
    files = {f"photos/{name}": jpeg(number) for number, name in enumerate(names)}
    files |= {
        "photos/train/cat/._1.jpg": b"",
        "photos/train/cat/1.mov": b"",
        "pictures/a b.jpg": jpeg(0),
        "pictures/2020/c.png": png(1),
    }
    miniature.make_tree(root, files | {"labels.csv": b"file,class\na b.jpg,golden retriever\nc.png,cat\n"})


def all_of_them(root: Path) -> None:
    for make in (own_images, imagenet, imagenet_at_kaggle, imagenet21k, cifar, pets, flowers, webdataset):
        make(root)


def mat(content: dict) -> bytes:
    file = io.BytesIO()
    savemat(file, content)
    return file.getvalue()
