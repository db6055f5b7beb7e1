"""Copies of a test set's images are dropped from what is prepared, listed with their originals, and nothing else is."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from preparation import miniature
from preparation.near_duplicates.pictures import picture
from preparation.preparing import make

from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.errors import UserError
from mixer_jax.preparation.spec import PreparationSpec


def jpeg(image: np.ndarray, quality: int = 92) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def grey_png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[1].tobytes()


def blank(level: int) -> bytes:
    return jpeg(np.full((64, 64, 3), level, np.uint8))


TEST = {f"{seed}.jpg": jpeg(picture(seed)) for seed in range(8)} | {"blank.jpg": blank(200)}
COPIES = {
    "exact.jpg": TEST["0.jpg"],
    "blank_exact.jpg": TEST["blank.jpg"],
    "recoded.jpg": jpeg(picture(1), 40),
    "smaller.jpg": jpeg(cv2.resize(picture(2), (160, 120), interpolation=cv2.INTER_AREA)),
    "cropped.jpg": jpeg(picture(3)[12:-12, 16:-16]),
    "lopsided.jpg": jpeg(picture(4)[12:, 16:]),
    "flipped.jpg": jpeg(picture(5)[:, ::-1]),
    "grey.png": grey_png(picture(6)),
}
ORIGINALS = dict(zip(COPIES, ["0.jpg", "blank.jpg", *(f"{seed}.jpg" for seed in range(1, 7))], strict=True))
KEPT = {f"other_{seed}.jpg": jpeg(picture(100 + seed)) for seed in range(8)} | {
    "white.jpg": blank(255), "nearly_white.jpg": blank(254), "grey_blank.jpg": blank(201), "noise.png": miniature.png(0),
    "rotated.jpg": jpeg(picture(7).transpose(1, 0, 2)), "negative.jpg": jpeg(255 - picture(7)),
}  # fmt: skip


def folder(root: Path) -> str:
    return f"folder:{miniature.make_tree(root / 'test', TEST)}"


def train(root: Path) -> str:
    images = {f"n{number % 2}/{name}": data for number, (name, data) in enumerate((COPIES | KEPT).items())}
    return f"folder:{miniature.make_tree(root / 'train', images)}"


def tar(root: Path) -> str:
    return f"tar:{miniature.make_tar(root / 'test.tar', TEST)}"


def packed(root: Path) -> str:
    return f"zip:{miniature.make_zip(root / 'test.zip', TEST)}"


def tars(root: Path) -> str:
    return f"tars:{miniature.make_tar_of_tars(root / 'tars.tar', {f'a/{name}': data for name, data in TEST.items()})}"


def webdataset(root: Path) -> str:
    classes = {f"{Path(name).stem}.cls": b"0" for name in TEST}
    return f"webdataset:{miniature.make_tar(root / 'x-0.tar', TEST | classes)}"


def records(root: Path) -> str:
    miniature.make_tree(root / "validation", {f"n0/{name}": data for name, data in TEST.items()})
    make(f"folder:{root / 'validation'}", root / "prepared", "validation", records_per_shard=4)
    return f"records:{root / 'prepared/validation'}"


def listed(split: Path) -> list[dict]:
    with open(split / "duplicates.tsv") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("reference", [folder, tar, tars, packed, webdataset, records])
def test_copies_are_dropped_and_listed_apart_and_nothing_else(tmp_path, reference):
    source = reference(tmp_path)
    held = make(train(tmp_path), tmp_path / "to", records_per_shard=3, drop_near_duplicates_of=(source,))
    assert {Path(name).name: data for name, (data, _) in held.items()} == KEPT
    rows = listed(tmp_path / "to/train")
    assert {Path(row["image"]).name: Path(row["reference"]).name for row in rows} == ORIGINALS
    assert {row["of"] for row in rows} == {source}
    assert [row["kind"] for row in rows] == ["exact"] * 2 + ["near"] * 6
    assert {Path(row["image"]).name for row in rows[:2]} == {"exact.jpg", "blank_exact.jpg"}
    distances = [float(row["distance"]) for row in rows[2:]]
    assert distances == sorted(distances) and distances[-1] <= 1 - PreparationSpec.near_duplicate_correlation
    manifest = Manifest(tmp_path / "to/train")
    assert manifest.content["duplicates"] == {"exact": 2, "near": 6}
    assert f"2 exact and 6 near duplicates of {source} dropped (see " in manifest.summary()


def test_each_copy_is_listed_with_the_source_of_its_original(tmp_path):
    halves = [{f"{name}": data for number, (name, data) in enumerate(TEST.items()) if number % 2 == half} for half in (0, 1)]
    sources = tuple(f"folder:{miniature.make_tree(tmp_path / str(half), files)}" for half, files in enumerate(halves))
    make(train(tmp_path), tmp_path / "to", drop_near_duplicates_of=sources)
    rows = listed(tmp_path / "to/train")
    assert {Path(row["image"]).name: row["reference"] for row in rows} == ORIGINALS
    assert all(row["of"] == sources[row["reference"] in halves[1]] for row in rows)


def test_what_is_dropped_depends_on_neither_threads_nor_shards(tmp_path):
    source, references = train(tmp_path), (tar(tmp_path),)
    make(source, tmp_path / "one", threads=1, records_per_shard=3, drop_near_duplicates_of=references)
    make(source, tmp_path / "two", threads=5, records_per_shard=3, drop_near_duplicates_of=references)
    make(source, tmp_path / "three", records_per_shard=50, drop_near_duplicates_of=references)
    assert miniature.folder_bytes(tmp_path / "one") == miniature.folder_bytes(tmp_path / "two")
    assert listed(tmp_path / "one/train") == listed(tmp_path / "three/train")


def test_a_lost_shard_is_made_anew_without_the_copies_by_the_command_of_the_manifest(tmp_path):
    source, options = train(tmp_path), {"records_per_shard": 3, "drop_near_duplicates_of": (tar(tmp_path), folder(tmp_path))}
    make(source, tmp_path / "to", **options)
    before = miniature.folder_bytes(tmp_path / "to")
    assert Manifest(tmp_path / "to/train").command.endswith(
        f"--drop-near-duplicates-of {' '.join(options['drop_near_duplicates_of'])} --to {tmp_path / 'to'}"
    )
    next((tmp_path / "to/train").glob("*00002-of*")).unlink()
    (tmp_path / "to/train/duplicates.tsv").unlink()
    make(source, tmp_path / "to", **options)
    assert miniature.folder_bytes(tmp_path / "to") == before


def test_a_split_with_other_references_or_none_is_another(tmp_path):
    source, reference = train(tmp_path), tar(tmp_path)
    make(source, tmp_path / "to", drop_near_duplicates_of=(reference,))
    make(source, tmp_path / "plain")
    for to, other in (("to", ()), ("to", (folder(tmp_path),)), ("plain", (reference,))):
        with pytest.raises(UserError, match=r"holds another split .*references"):
            make(source, tmp_path / to, drop_near_duplicates_of=other)


def test_a_manifest_from_before_there_were_references_is_read(tmp_path):
    make(train(tmp_path), tmp_path / "to")
    file = tmp_path / "to/train/manifest.json"
    content = json.loads(file.read_text())
    del content["duplicates"]
    for row in content["shards"]:
        del row["duplicates"]
    file.write_text(json.dumps(content))
    assert Manifest(tmp_path / "to/train").summary().endswith("images of 2 classes in 1 shards")


def test_classes_that_lose_their_last_image_are_refused_or_allowed(tmp_path):
    miniature.make_tree(tmp_path / "train", {"n9/copy.jpg": TEST["0.jpg"], "n10/other.jpg": KEPT["other_0.jpg"]})
    options = {"drop_near_duplicates_of": (tar(tmp_path),)}
    with pytest.raises(UserError, match=r"1 of 2 classes have no image, the first is 'n9'.*--allow-empty-classes"):
        make(f"folder:{tmp_path / 'train'}", tmp_path / "to", **options)
    held = make(f"folder:{tmp_path / 'train'}", tmp_path / "to", allow_empty_classes=True, **options)
    assert list(held) == ["n10/other.jpg"]
    miniature.make_tree(tmp_path / "all", {"n9/copy.jpg": TEST["0.jpg"]})
    with pytest.raises(UserError, match=r"no sound image left .* 1 of which are duplicates"):
        make(f"folder:{tmp_path / 'all'}", tmp_path / "none", **options)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("tfds:imagenet2012", r"must be folder:..., .* or records:DIR/SPLIT. .*--from tfds:NAME"),
        ("nowhere", "--drop-near-duplicates-of nowhere: it must be folder:"),
        ("tar:nowhere.tar", "no file nowhere.tar"),
        ("records:nowhere/test", "has no manifest.json"),
        ("records:{root}/prepared", "holds splits, which one is meant. Choose from records:.*/prepared/validation"),
        ("records:{root}/to/train", "that is what is prepared"),
        ("folder:{root}/train", "that is what is prepared"),
        ("folder:{root}/empty", "holds no image"),
    ],
)
def test_a_reference_that_is_not_there_is_refused_before_any_work(tmp_path, reference, message):
    records(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        make(train(tmp_path), tmp_path / "to", drop_near_duplicates_of=(reference.format(root=tmp_path),))
    assert not (tmp_path / "to").exists()


def test_a_reference_that_does_not_decode_is_named(tmp_path):
    miniature.make_tree(tmp_path / "test", TEST | {"cut.jpg": TEST["0.jpg"][:300]})
    with pytest.raises(UserError, match=r"folder:.*/test cannot be compared with: cut\.jpg is a damaged JPEG"):
        make(train(tmp_path), tmp_path / "to", drop_near_duplicates_of=(f"folder:{tmp_path / 'test'}",))
