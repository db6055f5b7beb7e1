"""Preparing miniatures, and what then lies in the shards."""

import os
from pathlib import Path

from preparation import miniature
from preparation.miniature import CLASSES

from mixer_jax.data.sources.shards import ShardReader
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec

TRAIN = miniature.train_images()


def make(source: str, to: Path, split: str = "train", threads: int = 2, **options) -> dict[str, tuple[bytes, tuple[str, ...]]]:
    """What a preparation's shards hold: name -> (image, class names)."""
    prepare(PreparationSpec(source, split, **options), to, threads)
    reader = ShardReader(to / split, "full")
    records = [reader.read(index)[:3] for index in range(len(reader))]
    held = {name: (image, tuple(reader.class_names[label] for label in labels)) for name, labels, image in records}
    assert len(held) == len(records)
    assert not (to / split / ".preparing").exists()
    return held


def by_class(images_by_name: dict[str, bytes]) -> dict[str, tuple[bytes, tuple[str, ...]]]:
    return {name: (data, (name.split("/")[-2],)) for name, data in images_by_name.items()}


def tree(root: Path) -> str:
    return f"folder:{miniature.make_tree(root / 'tree', TRAIN)}"


def spec_of(root: Path, **options) -> PreparationSpec:
    """Options by which the 15 images become four shards."""
    return PreparationSpec(tree(root), "train", records_per_shard=4, **options)


def contents(root: Path) -> dict[str, bytes]:
    """The bytes of every file in a folder, and the names of all folders in it."""
    folders = {os.path.relpath(folder, root) + "/": b"" for folder, _, _ in os.walk(root)}
    return miniature.folder_bytes(root) | folders


def tar_of_tars(root: Path) -> str:
    return f"tars:{miniature.make_tar_of_tars(root / 'ILSVRC2012_img_train.tar', TRAIN)}"


VALIDATION = {f"ILSVRC2012_val_{number:08d}.JPEG": miniature.jpeg(number) for number in range(1, 7)}
IDS = [CLASSES[2], CLASSES[0], CLASSES[1], "n99999999"]  # of ILSVRC2012_IDs 1 to 4: another order, and one that is no class
TRUTH = [2, 3, 1, 1, 2, 3]


def development_kit(root: Path) -> dict:
    return {"labels": str(miniature.make_development_kit(root / "ILSVRC2012_devkit_t12.tar.gz", IDS, TRUTH))}
