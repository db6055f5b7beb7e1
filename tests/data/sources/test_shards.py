"""Shards give back what was put in, to many threads at once, and not too many are open."""

import contextlib
import json
import os
import random
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from data.sources.prepared import NUM_IMAGES, PER_SHARD, SHARD, labels_of, opened
from preparation import miniature

from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.data.sources import shards
from mixer_jax.data.sources.shards import ShardReader, pack, unpack
from mixer_jax.errors import UserError
from mixer_jax.preparation.spec import PreparationSpec


@pytest.mark.parametrize("labels", [(), (0,), (29_999,), tuple(range(0, 30_000, 7))])
@pytest.mark.parametrize("image", [b"", b"\xff\xd8", bytes(100_000)])
def test_a_record_comes_back_as_it_was(labels, image):
    assert unpack(pack("n01440764/Ä 1.JPEG", labels, image)) == ("n01440764/Ä 1.JPEG", labels, image, False)


def test_every_image_comes_back_once_with_its_name_bytes_and_labels(made):
    reader = ShardReader(made / "train", "full")
    records = sorted(reader.read(index)[:3] for index in range(len(reader)))
    assert records == [(f"{i:02d}.jpg", labels_of(i), miniature.jpeg(i)) for i in range(NUM_IMAGES)]


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
    with pytest.raises(FileNotFoundError, match=SHARD):
        source[3 * PER_SHARD]


class LyingShard:
    """A shard whose every record has these bytes."""

    def __init__(self, record: bytes):
        self.record = record

    def read(self, positions):
        return [self.record] * len(positions)


@pytest.mark.parametrize("record", [b"", b"abc", b"\x00\x00\xff\xff\x00", b"\x02\x00\x00\x00\x00\xff\xff", b"\xff" * 100])
def test_a_record_that_is_none_of_ours_is_an_unreadable_image(made, monkeypatch, record):
    monkeypatch.setattr(shards, "open_shard", lambda file, images: LyingShard(record))
    source = opened(made)
    with pytest.raises(UnreadableImageError, match="no record that `prepare` wrote"):
        source[3]
    assert "record" in source.locate(3)


@pytest.mark.parametrize("numbers", [[], [1], [1, 1, 1, 1], [1, 1, 1, 2, 0, 0, 0, 0], [-1, 1, 1, 1, 0, 0], [2**31 - 1] * 4])
def test_labels_that_do_not_fit_the_images_are_refused(monkeypatch, numbers):
    packed = np.array(numbers, "<i4").tobytes()
    monkeypatch.setattr(shards, "open_shard", lambda file, images: LyingShard(packed))
    with pytest.raises(UserError, match="does not hold the labels of its 4 images"):
        shards.read_labels("x", 4)


def test_an_image_with_too_many_labels_for_a_record_is_refused():
    assert unpack(pack("a", tuple(range(65_535)), b"")).labels == tuple(range(65_535))
    with pytest.raises(UserError, match="70000 labels"):
        pack("a", tuple(range(70_000)), b"")
