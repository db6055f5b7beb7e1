"""Of images that are copies of each other the first is kept, however the preparation was run, killed or mended."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from preparation import miniature
from preparation.near_duplicates.pictures import picture
from preparation.preparing import make
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.errors import UserError
from mixer_jax.preparation.near_duplicates import within
from mixer_jax.preparation.near_duplicates.fingerprint import fingerprint_image
from mixer_jax.preparation.spec import PreparationSpec


def jpeg(image: np.ndarray, quality: int = 92) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


BLANK = jpeg(np.full((64, 64, 3), 200, np.uint8))
KEPT = {f"n0/a{seed}.jpg": jpeg(picture(seed)) for seed in range(8)} | {"n0/blank.jpg": BLANK}
DROPPED = {  # name: (bytes, original)
    "n0/b_recoded.jpg": (jpeg(picture(1), 40), "n0/a1.jpg"),
    "n1/exact.jpg": (KEPT["n0/a0.jpg"], "n0/a0.jpg"),
    "n1/blank_exact.jpg": (BLANK, "n0/blank.jpg"),
    "n1/flipped.jpg": (jpeg(picture(2)[:, ::-1]), "n0/a2.jpg"),
    "n1/cropped.jpg": (jpeg(picture(3)[24:-24, 32:-32]), "n0/a3.jpg"),
    "n1/cropped_again.jpg": (jpeg(picture(3)[20:-24, 30:-30]), "n0/a3.jpg"),
    "n1/recoded_again.jpg": (jpeg(picture(1), 60), "n0/a1.jpg"),
}
OTHERS = {"n1/other.jpg": jpeg(picture(50)), "n1/blank.jpg": jpeg(np.full((64, 64, 3), 201, np.uint8))}
IMAGES = KEPT | {name: data for name, (data, _) in DROPPED.items()} | OTHERS
OPTIONS = {"drop_near_duplicates_within": True, "records_per_shard": 4}


def tree(root: Path) -> str:
    return f"folder:{miniature.make_tree(root / 'tree', IMAGES)}"


def listed(split: Path) -> dict[str, dict]:
    with open(split / "duplicates.tsv") as file:
        return {row["image"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_the_first_of_copies_is_kept_and_the_others_are_listed_with_it(tmp_path):
    held = make(tree(tmp_path), tmp_path / "to", **OPTIONS)
    assert {name: data for name, (data, _) in held.items()} == KEPT | OTHERS
    rows = listed(tmp_path / "to/train")
    assert {name: row["reference"] for name, row in rows.items()} == {name: first for name, (_, first) in DROPPED.items()}
    assert {row["of"] for row in rows.values()} == {"within"}
    assert {name for name, row in rows.items() if row["kind"] == "exact"} == {"n1/exact.jpg", "n1/blank_exact.jpg"}
    assert all(float(row["distance"]) <= 1 - PreparationSpec.near_duplicate_correlation for row in rows.values())
    manifest = Manifest(tmp_path / "to/train")
    assert manifest.content["duplicates"] == {"exact": 2, "near": 5}
    assert "2 exact and 5 near duplicates of earlier images dropped (see " in manifest.summary()
    assert manifest.command.split(" --to")[0].endswith("--drop-near-duplicates-within")


def test_threads_and_shards_change_nothing(tmp_path, monkeypatch):
    source = tree(tmp_path)
    make(source, tmp_path / "one", threads=1, **OPTIONS)
    monkeypatch.setattr(within, "CHUNK", 3)
    make(source, tmp_path / "two", threads=5, **OPTIONS)
    make(source, tmp_path / "three", **OPTIONS | {"records_per_shard": 50})
    assert miniature.folder_bytes(tmp_path / "one") == miniature.folder_bytes(tmp_path / "two")
    assert listed(tmp_path / "one/train") == listed(tmp_path / "three/train")


def test_it_goes_on_from_the_fingerprints_it_has_and_ends_the_same(tmp_path, monkeypatch):
    source = tree(tmp_path)
    monkeypatch.setattr(within, "CHUNK", 5)
    make(source, tmp_path / "whole", **OPTIONS)
    real, made = within.fingerprint_image, []

    def stop_at_the_ninth(*arguments):
        made.append(arguments)
        if len(made) == 9:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(within, "fingerprint_image", stop_at_the_ninth)
    with pytest.raises(OSError, match="No space left"):
        make(source, tmp_path / "to", threads=1, **OPTIONS)
    make(source, tmp_path / "to", threads=1, **OPTIONS)
    assert len(made) == 9 + len(IMAGES) - 5
    assert miniature.folder_bytes(tmp_path / "to") == miniature.folder_bytes(tmp_path / "whole")


def test_a_lost_shard_is_made_anew_without_fingerprints(tmp_path, monkeypatch):
    source = tree(tmp_path)
    make(source, tmp_path / "to", **OPTIONS)
    before = miniature.folder_bytes(tmp_path / "to")
    next((tmp_path / "to/train").glob("*00002-of*")).unlink()
    monkeypatch.setattr(within, "fingerprint_image", None)
    make(source, tmp_path / "to", **OPTIONS)
    assert miniature.folder_bytes(tmp_path / "to") == before


def test_copies_of_references_go_first_and_then_those_within(tmp_path):
    reference = f"folder:{miniature.make_tree(tmp_path / 'test', {'x.jpg': KEPT['n0/a1.jpg'], 'y.jpg': jpeg(picture(50), 70)})}"
    held = make(tree(tmp_path), tmp_path / "to", drop_near_duplicates_of=(reference,), **OPTIONS)
    assert held.keys() == (KEPT | OTHERS).keys() - {"n0/a1.jpg", "n1/other.jpg"}
    rows = listed(tmp_path / "to/train")
    of_references = {name: row["reference"] for name, row in rows.items() if row["of"] == reference}
    assert of_references == {
        "n0/a1.jpg": "x.jpg", "n0/b_recoded.jpg": "x.jpg", "n1/recoded_again.jpg": "x.jpg", "n1/other.jpg": "y.jpg"
    }  # fmt: skip


def test_many_images_that_are_all_alike_leave_one():
    rng = np.random.default_rng(0)
    noise = rng.integers(-3, 4, (40, 32, 32))
    thumbnails = np.clip(fingerprint_image(picture(0)) + noise, 0, 255).astype(np.uint8)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(2) as pool:
        dropped = within._near_duplicates(thumbnails, np.arange(40) * 10, 0.9, pool)
    assert sorted(dropped) == list(range(10, 400, 10))


def test_drawings_of_a_few_strokes_are_taken_for_copies_as_the_docs_warn():
    images, labels = (values[60:150] for values in (load_digits().images, load_digits().target))
    pixels = np.round(images[..., None].repeat(3, axis=3) * 255 / 16).astype(np.uint8)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(2) as pool:
        later, earlier, _ = within.find_pairs(np.stack(list(map(fingerprint_image, pixels))), 0.9, pool)
    assert len(set(later)) > 20 and np.any(labels[later] != labels[earlier])
    assert "MNIST" in within.__doc__ and "MNIST" in (Path(__file__).parents[3] / "docs/data.md").read_text()


THRESHOLDS = [("near_duplicate_correlation", 0.95), ("near_duplicate_detail", 0.3), ("drop_near_duplicates_within", False)]


@pytest.mark.parametrize(("option", "value"), THRESHOLDS)
def test_a_split_made_with_other_thresholds_is_another(tmp_path, option, value):
    source = tree(tmp_path)
    make(source, tmp_path / "to", **OPTIONS)
    with pytest.raises(UserError, match=r"holds another split \(other (near|within)"):
        make(source, tmp_path / "to", **OPTIONS | {option: value})
    if value:
        command = make_command(source, option, value)
        assert command.endswith(f"--{option.replace('_', '-')} {value}")


def make_command(source: str, option: str, value: float) -> str:
    return PreparationSpec(source, "train", drop_near_duplicates_within=True, **{option: value}).command()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"near_duplicate_correlation": 0.69} | OPTIONS, r"--near-duplicate-correlation 0.69: it must be from 0.7 to 1"),
        ({"near_duplicate_correlation": float("nan")} | OPTIONS, "--near-duplicate-correlation nan: it must be"),
        ({"near_duplicate_detail": 1.1} | OPTIONS, "--near-duplicate-detail 1.1: it must be from 0 to 1"),
        ({"near_duplicate_detail": 0.3}, "--near-duplicate-detail has no effect without --drop-near-duplicates-of or"),
    ],
)
def test_thresholds_out_of_range_or_without_effect_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        make(tree(tmp_path), tmp_path / "to", **options)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("lost", [False, True])
def test_a_split_of_the_earlier_method_is_read_and_left_or_not_mended(tmp_path, lost):
    """Versions before 2026-12 compared perceptual hashes: their manifests say "near": [60, 0.8]."""
    source = tree(tmp_path)
    reference = f"folder:{miniature.make_tree(tmp_path / 'test', {'x.jpg': KEPT['n0/a1.jpg']})}"
    options = {"drop_near_duplicates_of": (reference,), "records_per_shard": 4}
    make(source, tmp_path / "to", **options)
    file = tmp_path / "to/train/manifest.json"
    content = json.loads(file.read_text())
    content["made"]["near"] = [60, 0.8]
    file.write_text(json.dumps(content, indent=2) + "\n")
    if lost:
        next((tmp_path / "to/train").glob("*00002-of*")).unlink()
        with pytest.raises(UserError, match=r"an earlier version .* found near duplicates in another way"):
            make(source, tmp_path / "to", **options)
    else:
        make(source, tmp_path / "to", **options)
        assert json.loads(file.read_text()) == content
        assert "near duplicates of folder:" in Manifest(tmp_path / "to/train").summary()
