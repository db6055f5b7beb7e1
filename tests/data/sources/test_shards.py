"""Shards give back what was put in, and a split that is not as its manifest says is refused before it is read."""

import contextlib
import json
import os
import random
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from preparation import miniature
from tiny_config import loader_config

from mixer_jax.config import dataset
from mixer_jax.data.sources import manifest as manifest_module
from mixer_jax.data.sources import shards
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.shards import ShardReader, pack, unpack
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.errors import UserError
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec

NUM_IMAGES, PER_SHARD = 30, 4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
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
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def labels_of(number: int) -> tuple[int, ...]:
    """None, one, or several of 30 000."""
    return tuple(sorted({29_999 - number, 7 * number, 123}))[: number % 4]


def opened(directory: Path, split: str = "train", verify: str = "full"):
    return open_source(dataset(f"records:{directory}", split, verify=verify))


@pytest.mark.parametrize("labels", [(), (0,), (29_999,), tuple(range(0, 30_000, 7))])
@pytest.mark.parametrize("image", [b"", b"\xff\xd8", bytes(100_000)])
def test_a_record_comes_back_as_it_was(labels, image):
    assert unpack(pack("n01440764/Ä 1.JPEG", labels, image)) == ("n01440764/Ä 1.JPEG", labels, image, False)


def test_every_image_comes_back_once_with_its_name_bytes_and_labels(made):
    reader = ShardReader(made / "train", "full")
    records = sorted(reader.read(index)[:3] for index in range(len(reader)))
    assert records == [(f"{i:02d}.jpg", labels_of(i), miniature.jpeg(i)) for i in range(NUM_IMAGES)]


def test_a_split_says_what_it_holds(made):
    source = opened(made)
    assert (len(source), source.num_classes, source.max_labels) == (NUM_IMAGES, 30_000, 3)
    assert source.class_names[29_999] == "class 29999"
    assert all(source.labels(i) == source[i].labels for i in range(len(source)))
    content = json.loads((made / "train/manifest.json").read_text())
    assert (content["label_kind"], content["records"]) == ("multi", NUM_IMAGES)
    assert [row["records"] for row in content["shards"]] == [4] * 6 + [3] * 2
    counts = np.bincount([label for i in range(NUM_IMAGES) for label in labels_of(i)], minlength=30_000)
    assert content["images_of_class"] == counts.tolist()


def test_batches_hold_class_numbers_and_no_row_of_all_classes(made):
    config = dataset(f"records:{made}")

    def transform(image, rng):
        return image[:2, :2]

    batches = eval_batches(open_source(config), transform, loader_config(), batch_size=10, batch_indices=np.arange(10))
    batch = next(iter(batches))
    assert batch["labels"].shape == (10, 3) and batch["labels"].dtype == np.int32


def test_many_threads_read_one_split(made):
    reader = ShardReader(made / "train", "full")
    order = [random.Random(seed).randrange(NUM_IMAGES) for seed in range(2000)]
    alone = [reader.read(index) for index in range(NUM_IMAGES)]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(reader.read, order)) == [alone[index] for index in order]
        assert list(threads.map(reader.labels, order)) == [alone[index][1] for index in order]


def open_files(directory: Path) -> int:
    """How many files in a folder this process has open."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(descriptor))
    return sum(link.startswith(f"{directory}/") for link in links)


def test_shards_are_opened_when_read_and_closed_when_others_are(made, monkeypatch):
    monkeypatch.setattr(shards, "max_open_shards", lambda images: 2)
    reader, threads = ShardReader(made / "train", "full"), 8
    assert open_files(made / "train") == 0
    alone = [reader.read(index) for index in range(NUM_IMAGES)]
    assert open_files(made / "train") == 2

    def read(index: int) -> tuple:
        return reader.read(index), reader.labels(index), open_files(made / "train")

    order = [random.Random(seed).randrange(NUM_IMAGES) for seed in range(1000)]
    with ThreadPoolExecutor(threads) as pool:
        for index, (record, labels, files) in zip(order, pool.map(read, order), strict=True):
            assert record == alone[index] and labels == record[1]
            assert files <= 2 + threads  # what a thread is reading is not closed under it
    assert open_files(made / "train") == 2


@pytest.mark.parametrize("files", [256, 2**16, 2**20, resource.RLIM_INFINITY])
@pytest.mark.parametrize("images", [1, 100, 2048, 10**6, 10**9])
def test_open_shards_are_bounded_by_memory_and_by_files(monkeypatch, files, images):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (files, files))
    count = shards.max_open_shards(images)
    assert count == 1 or count * images < shards.INDEXED_IMAGES
    assert 1 <= count <= (files if files > 0 else shards.MOST_FILES) // 2


def test_all_shards_of_imagenet21k_stay_open(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**20, 2**20))
    images = PreparationSpec.records_per_shard
    assert shards.max_open_shards(images) >= 14_197_122 / images


def test_a_shard_of_another_number_of_images_than_its_row_has_is_refused_when_it_is_read(copy):
    file = copy / "train/manifest.json"
    content = json.loads(file.read_text())
    content["shards"][0]["records"] += 1
    content["shards"][1]["records"] -= 1
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"00000-of-00008\.array_record does not hold the 5 images that manifest.json gives it"):
        opened(copy)[0]


def test_a_shard_that_goes_during_the_run_is_named(copy):
    source = opened(copy)
    (copy / "train" / SHARD).unlink()
    with pytest.raises(UserError, match=rf"{SHARD} cannot be opened: .*No such file"):
        source[3 * PER_SHARD]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:7]", range(7)), ("train[7:]", range(7, 30)), ("train[-5:]", range(25, 30)), ("train[10%:50%]", range(3, 15)),
        ("train[2:-2]", range(2, 28)), ("train[:]", range(30)),
    ],
)  # fmt: skip
def test_a_slice_is_part_of_the_split(made, split, expected):
    whole, part = opened(made), opened(made, split)
    assert [part[i] for i in range(len(part))] == [whole[i] for i in expected]
    assert part.locate(0) == whole.locate(expected[0])


def test_a_folder_of_a_split_is_read_with_an_empty_split(made):
    assert len(opened(made / "train", "")) == NUM_IMAGES


SHARD = "train-00003-of-00008.array_record"


def missing(file: Path):
    file.unlink()


def extra(file: Path):
    shutil.copy(file, file.with_name("train-00008-of-00008.array_record"))


def truncated(file: Path):
    os.truncate(file, file.stat().st_size - 1)


def swapped(file: Path):
    other = file.with_name("train-00004-of-00008.array_record")
    one, two = file.read_bytes(), other.read_bytes()
    length = max(len(one), len(two))  # of one size, so that sizes do not tell
    file.write_bytes(two.ljust(length, b"\0")[: len(one)])
    other.write_bytes(one.ljust(length, b"\0")[: len(two)])


def altered(file: Path):
    content = bytearray(file.read_bytes())
    content[content.index(b"\xff\xd8") + 300] ^= 1  # within the first image
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (missing, f"{SHARD} is missing.*--from"),
        (extra, r"train-00008-of-00008\.array_record is not in manifest.json.*rm "),
        (truncated, f"{SHARD} has [0-9]+ bytes, and [0-9]+ in manifest.json.*--from"),
        (swapped, f"{SHARD} is altered, or another shard under its name.*--from"),
        (altered, f"{SHARD} is altered.*--from"),
    ],
)
@pytest.mark.parametrize("verify", ["full", "ends"])
def test_a_shard_that_is_not_as_it_was_made_is_named_before_anything_is_read(copy, fault, message, verify):
    opened(copy, verify=verify)
    fault(copy / "train" / SHARD)
    with pytest.raises(UserError, match=message):
        opened(copy, verify=verify)


def test_a_flipped_bit_in_the_middle_of_a_large_shard_escapes_the_ends_but_not_the_reader(copy, monkeypatch):
    monkeypatch.setattr(manifest_module, "END_BYTES", 64)
    file = copy / "train/manifest.json"
    content = json.loads(file.read_text())
    for row in content["shards"]:
        row["ends_sha256"] = manifest_module.ends_sha256(copy / "train" / row["name"])
    file.write_text(json.dumps(content))
    altered(copy / "train" / SHARD)
    source = opened(copy, verify="ends")
    with pytest.raises(UserError, match=f"{SHARD} record [0-9] has changed on the disk"):
        for index in range(len(source)):
            source[index]


def test_shards_are_hashed_once_and_again_when_touched(copy, monkeypatch):
    hashed = []
    real = manifest_module.sha256
    monkeypatch.setattr(manifest_module, "sha256", lambda file: hashed.append(file.name) or real(file))
    opened(copy)
    assert len(hashed) == 8
    opened(copy)
    assert len(hashed) == 8
    os.utime(copy / "train" / SHARD)
    opened(copy)
    assert hashed[8:] == [SHARD]


def test_without_a_place_for_receipts_a_split_still_opens(copy, cache):
    cache.write_text("a file, where a folder should be")
    assert len(opened(copy)) == len(opened(copy)) == NUM_IMAGES


def rename(content):
    content["shards"][0], content["shards"][1] = content["shards"][1], content["shards"][0]


def lead_out(content):
    content["shards"][0]["name"] = "../../" + content["shards"][0]["name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "contradicts itself"),
        (lead_out, "contradicts itself"),
        (lambda content: content.update(records=31), "contradicts itself"),
        (lambda content: content["class_names"].pop(), "contradicts itself"),
        (lambda content: content.pop("shards"), "is damaged.*shards"),
        (lambda content: content["shards"][0].pop("sha256"), "is damaged"),
        (lambda content: content.update(format=1), "no manifest of format 2"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(copy, change, message):
    file = copy / "train/manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        opened(copy)


def places(content, path=()):
    """Paths of all values of a manifest; of long lists the first two."""
    pairs = content.items() if isinstance(content, dict) else list(enumerate(content))[:2] if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def test_a_manifest_with_any_value_changed_is_refused_in_words_or_means_the_same(copy):
    file = copy / "train/manifest.json"
    whole = file.read_text()
    refused = 0
    for path in places(json.loads(whole)):
        for value in (None, "../x", -1, []):
            content = inner = json.loads(whole)
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            file.write_text(json.dumps(content))
            try:
                assert len(opened(copy, verify="ends")) == NUM_IMAGES
            except UserError:
                refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation", "no manifest.json.*There are the splits train"),
        ("train[:", r"data.split is 'train\[:'"),
        ("train[5:5]", "no record"),
    ],
)
def test_a_split_that_is_not_there_is_refused_with_those_that_are(made, split, message):
    with pytest.raises(UserError, match=message):
        opened(made, split)


def test_a_folder_that_was_never_prepared_is_refused_with_the_command(tmp_path):
    with pytest.raises(UserError, match="mixer_jax prepare"):
        opened(tmp_path)
