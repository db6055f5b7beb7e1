"""Prepared shards, and data sets of TFDS."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from data.unreadable_images import file_of, picture
from hostile.builders import MEBIBYTE, Build, after, endless, written
from preparation.miniature import jpeg, make_tree

from mixer_jax.data.sources.manifest import ends_sha256, sha256
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.prepare import prepare, prepare_part
from mixer_jax.preparation.spec import PreparationSpec

SHARD = "train-00000-of-00001.array_record"
TINY_TFDS = "tiny/1.0.0"


def prepared(folder: Path) -> None:
    """Make a split of four images in one shard."""
    images = make_tree(folder / "images", {f"{name}/{number}.jpg": jpeg(number) for number in (0, 1) for name in "ab"})
    prepare(PreparationSpec(f"folder:{images}", "train"), folder / "to", threads=1)
    for file in (folder / "to/train").iterdir():
        shutil.move(file, folder)


def manifest_with(**changes) -> Build:
    def build(folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(content | changes))

    return build


def row_with(folder: Path, **changes) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    content["shards"][0] |= changes
    (folder / "manifest.json").write_text(json.dumps(content))


def shard_of(*records: bytes) -> Build:
    """Return a builder that puts these records in the shard's place, with digests to match."""

    def build(folder: Path) -> None:
        file = folder / SHARD
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        row_with(folder, bytes=file.stat().st_size, sha256=sha256(file), ends_sha256=ends_sha256(file))

    return build


def shard_behind(make: Callable[[Path], object]) -> Build:
    """Return a builder that puts a pipe or device of the size that the manifest says in the shard's place."""

    def build(folder: Path) -> None:
        (folder / SHARD).unlink()
        make(folder / SHARD)
        row_with(folder, bytes=0)

    return build


SHARDS = after(
    prepared,
    {
        "deep": written("manifest.json", lambda: b'{"format": 2, "a":' + b"[" * 10**6),
        "largest labels": manifest_with(max_labels=2**31),
        "records of 10^30": manifest_with(records=10**30),
        "classes of nobody": manifest_with(classes=2**31),
        "class names of numbers": manifest_with(class_names=[1, 2]),
        "split elsewhere": manifest_with(split="../../etc"),
        "shards without end": manifest_with(shards=[{}] * 10**5),
        "records of three bytes": shard_of(b"abc", b"abc", b"abc", b"abc", bytes(4)),
        "records of zeros": shard_of(*[bytes(300 * MEBIBYTE)] * 2, b"", b"", bytes(4)),
        "labels without end": shard_of(*[struct.pack("<HHB", 1, 65_535, 0)] * 4, np.full(4, 2**31 - 1, "<i4").tobytes()),
        "a shard that is a pipe": shard_behind(os.mkfifo),
        "a shard that is a device": shard_behind(lambda file: file.symlink_to("/dev/zero")),
    }
    | endless("manifest.json"),
)


def part_made(folder: Path) -> None:
    """Make the only part of a split, which is not joined."""
    images = make_tree(folder / "images", {f"{name}/{number}.jpg": jpeg(number) for number in (0, 1) for name in "ab"})
    prepare_part(PreparationSpec(f"folder:{images}", "train"), folder, 1, Part(1, 1))


def unfinished_with(file_name: str, **changes) -> Build:
    """Return a builder that changes entries of a file of a split that is not finished. Rows without a seal are read too."""

    def build(folder: Path) -> None:
        file = folder / "train/.preparing" / file_name
        content = json.loads(file.read_text()) | changes
        content.pop("seal", None)
        file.write_text(json.dumps(content))

    return build


PLAN, ROW = "train/.preparing/plan.json", "train/.preparing/shard-000000.json"
PARTS = after(
    part_made,
    {
        "plan: deep": written(PLAN, lambda: b'{"a":' + b"[" * 10**6),
        "plan: images without end": unfinished_with("plan.json", images=2**62, records_per_shard=1),
        "plan: images of 10^30": unfinished_with("plan.json", images=10**30),
        "plan: classes of numbers": unfinished_with("plan.json", class_names=[1, 2]),
        "plan: a class less": unfinished_with("plan.json", class_names=["a"]),
        "plan: a command of theirs": unfinished_with("plan.json", command="touch canary; \x1b[2J", images=7000),
        "row: deep": written(ROW, lambda: b'{"a":' + b"[" * 10**6),
        "row: records of 10^30": unfinished_with("shard-000000.json", records=10**30),
        "row: records without end": unfinished_with("shard-000000.json", records=2**62),
        "row: elsewhere": unfinished_with("shard-000000.json", name="../../etc"),
        "row: copies of nothing": unfinished_with("shard-000000.json", duplicates=[[]]),
    }
    | endless(PLAN)
    | endless(ROW)
    | endless("train/.preparing/lock")
    | endless("train/" + SHARD),
)


def tfds_set(folder: Path) -> None:
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None
        name = "tiny"

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": ((number, {"image": file_of(picture(number), "PNG"), "label": number % 2}) for number in range(4))}

        def _generate_examples(self):
            yield

    Tiny(data_dir=folder, file_format="array_record").download_and_prepare()


def many_classes(folder: Path) -> None:
    file = folder / TINY_TFDS / "features.json"
    content = file.read_text()
    assert '"numClasses": "2"' in content
    file.write_text(content.replace('"numClasses": "2"', '"numClasses": "3000000000"'))
    (folder / TINY_TFDS / "label.labels.txt").unlink()


def module_of_their_own(folder: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'canary')!r}, 'w')")
    features = {"pythonClassName": "evil.Feature", "featuresDict": {"features": {}}}
    (folder / TINY_TFDS / "features.json").write_text(json.dumps(features))


TFDS = after(
    tfds_set,
    {
        "code": module_of_their_own,
        "classes": many_classes,
        "deep": written(f"{TINY_TFDS}/features.json", lambda: b"[" * 10**6),
        **endless(f"{TINY_TFDS}/features.json"),
        **endless(f"{TINY_TFDS}/dataset_info.json"),
        **endless(f"{TINY_TFDS}/label.labels.txt"),
        **{
            name: build
            for name, build in endless(f"{TINY_TFDS}/tiny-train.array_record-00000-of-00001").items()
            if "flood" not in name
        },
    },
)
