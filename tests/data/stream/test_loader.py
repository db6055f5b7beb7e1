"""The stream of records is the same on any number of hosts and workers and from any step. A record has its own randomness."""

import hashlib

import cv2
import numpy as np
import pytest
from tiny_config import loader_config

from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.data.sources.source import Record
from mixer_jax.data.stream.loader import eval_batches, train_batches
from mixer_jax.data.stream.order import EpochOrder
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.errors import UserError


class Numbers:
    """A source whose pixels are the number of their record. Record i has i % (max_labels + 1) labels."""

    num_classes = 5
    class_names = tuple("abcde")

    def __init__(self, length: int, max_labels: int = 1):
        self._length, self.max_labels = length, max_labels

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        return Record(np.full((2, 2, 3), index, np.uint8), self.labels(index))

    def labels(self, index):
        return tuple(range(index % (self.max_labels + 1)))

    def locate(self, index):
        return f"number {index}"


def scribble(image, rng):
    """Replace all pixels but the first by random ones."""
    drawn = rng.integers(0, 256, image.shape, np.uint8)
    drawn[0, 0] = image[0, 0]
    return drawn


def unchanged(image, rng):
    return image


def in_one_size(image, rng):
    return np.broadcast_to(image[:1, :1], (2, 2, 3))


def hosts_indices(batch_size: int, hosts: int) -> list[np.ndarray]:
    return np.split(np.arange(batch_size), hosts)


def join(batches_of_hosts: list[list[dict]]) -> list[dict]:
    """Return the global batches, joined from the parts of the hosts."""
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*batches_of_hosts, strict=True)
    ]


def train_stream(
    *, length=13, seed=0, batch_size=8, steps=range(7), hosts=1, workers=1, max_labels=1, batch_indices=None
) -> list[dict]:
    def read(indices):
        source = Numbers(length, max_labels)
        options = {"seed": seed, "batch_size": batch_size, "steps": steps, "unreadable": UnreadableImages()}
        loader = loader_config(workers=workers, prefetch=16)
        return list(train_batches(source, scribble, loader, batch_indices=indices, **options))

    if batch_indices is not None:
        return read(batch_indices)
    return join([read(indices) for indices in hosts_indices(batch_size, hosts)])


def fingerprints(stream: list[dict]) -> list[str]:
    return [
        hashlib.sha256(b"".join(batch[name].tobytes() for name in ("image", "labels", "mask"))).hexdigest() for batch in stream
    ]


def records(stream: list[dict]) -> np.ndarray:
    return np.concatenate([batch["image"][:, 0, 0, 0] for batch in stream])


@pytest.mark.parametrize("how", [{"hosts": 2}, {"hosts": 4}, {"workers": 8}, {"hosts": 4, "workers": 3}])
def test_the_stream_of_global_batches_is_the_same_on_any_number_of_hosts_and_workers(how):
    assert fingerprints(train_stream(**how)) == fingerprints(train_stream())


@pytest.mark.parametrize("first", [1, 3, 6])
def test_a_stream_taken_up_at_a_step_is_the_rest_of_the_whole_one(first):
    assert fingerprints(train_stream(steps=range(first, 7), hosts=2, workers=2)) == fingerprints(train_stream())[first:]


def test_a_host_may_hold_any_rows():
    indices = np.array([1, 2, 6])
    for part, batch in zip(train_stream(batch_indices=indices), train_stream(), strict=True):
        np.testing.assert_array_equal(part["image"], batch["image"][indices])


def test_batches_follow_the_order_of_epochs_across_their_ends():
    order = EpochOrder(13, 0)
    assert records(train_stream()).tolist() == [order(position)[1] for position in range(7 * 8)]
    assert records(train_stream(batch_size=3, steps=range(18))).tolist() == [order(position)[1] for position in range(18 * 3)]


def test_the_augmentation_of_a_record_depends_on_seed_epoch_and_record_alone():
    def views(seed, batch_size):
        stream = train_stream(seed=seed, batch_size=batch_size, steps=range(52 // batch_size))
        images = np.concatenate([batch["image"] for batch in stream])
        return {(i // 13, int(image[0, 0, 0])): image.tobytes() for i, image in enumerate(images)}

    seen = views(0, 4)
    assert len(seen) == len(set(seen.values())) == 52  # Four epochs have 13 records each.
    assert views(0, 13) == views(0, 26) == seen
    assert not set(views(1, 4).values()) & set(seen.values())


def test_labels_are_padded_and_arrays_have_the_promised_types():
    batch = train_stream(max_labels=3)[0]
    assert {name: (x.dtype.name, x.shape) for name, x in batch.items()} == {
        "image": ("uint8", (8, 2, 2, 3)), "labels": ("int32", (8, 3)), "mask": ("float32", (8,)), "substituted": ("int32", (8,)),
    }  # fmt: skip
    for record, labels in zip(records([batch]), batch["labels"], strict=True):
        assert labels.tolist() == [*range(record % 4), -1, -1, -1][:3]
    assert np.all(batch["mask"] == 1) and not batch["substituted"].any()


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize(("length", "batch_size"), [(13, 8), (13, 4), (16, 8), (3, 8), (1, 4), (25, 12)])
def test_an_evaluation_reads_every_record_once_in_order_and_the_rest_is_masked(length, batch_size, hosts):
    source, loader = Numbers(length), loader_config(prefetch=8)
    parts = [
        list(eval_batches(source, in_one_size, loader, batch_size=batch_size, batch_indices=indices))
        for indices in hosts_indices(batch_size, hosts)
    ]
    assert {len(part) for part in parts} == {-(-length // batch_size)}  # Every host has the same number of batches.
    stream = join(parts)
    assert all(len(batch["mask"]) == batch_size for batch in stream)
    mask = np.concatenate([batch["mask"] for batch in stream])
    assert records(stream)[mask == 1].tolist() == list(range(length))
    assert np.all((mask == 1) | (mask == 0))
    assert not np.concatenate([batch["image"] for batch in stream])[mask == 0].any()


def test_an_evaluation_ends_at_a_damaged_file_and_names_it(tmp_path):
    (tmp_path / "ant").mkdir()
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"ant/{i}.jpg"), np.full((8, 8, 3), 9, np.uint8))
    (tmp_path / "ant/2.jpg").write_bytes(b"\xff\xd8 and no more")
    with pytest.raises(UserError, match=r"ant/2\.jpg is a damaged JPEG \(no header\)\. Mend or remove it"):
        next(eval_batches(FolderSource(str(tmp_path), ""), unchanged, loader_config(), batch_size=4, batch_indices=np.arange(4)))


def test_more_labels_than_declared_are_refused_with_the_option_to_raise():
    source = Numbers(4, max_labels=3)
    source.max_labels, source.labels = 2, lambda index: (0, 1, 2)
    with pytest.raises(UserError, match=r"number 0 has 3 labels: set data\.max_labels"):
        next(eval_batches(source, unchanged, loader_config(), batch_size=4, batch_indices=np.arange(4)))


@pytest.mark.parametrize("labels", [(4,), (-1,), (0, 7)])
def test_a_label_that_is_no_class_is_refused_whatever_the_source(labels):
    source = Numbers(4, max_labels=3)
    source.num_classes, source.labels = 4, lambda index: labels
    with pytest.raises(UserError, match=r"number 0 has the labels \(.*\), and its source has 4 classes, from 0 on"):
        next(eval_batches(source, unchanged, loader_config(), batch_size=4, batch_indices=np.arange(4)))
