"""Of 1000 images, exactly the 52 unreadable ones are substituted, and the stream stays a pure function of the seed."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from data.unreadable_images import UNREADABLE, write_corpus
from tiny_config import loader_config

from mixer_jax.config import default_config
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.data.sources.source import Record
from mixer_jax.data.stream.loader import eval_batches, train_batches
from mixer_jax.data.stream.order import EpochOrder
from mixer_jax.data.stream.unreadable import UnreadableImages, read_or_substitute
from mixer_jax.errors import UserError

CAP, BATCH, STEPS = 2**26, 40, 25  # The steps are an epoch.


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[FolderSource, dict[int, str]]:
    root = tmp_path_factory.mktemp("corpus")
    planted = write_corpus(root)
    return FolderSource(str(root), ""), planted


def stream(
    source, *, hosts=1, workers=4, steps=range(STEPS), seed=0, batch_size=BATCH, listed=None, processes=False
) -> list[dict]:
    """Return the global batches, joined from the batches that each host reads."""
    transform = train_transform(default_config().augment, 8)
    parts = []
    for indices in np.split(np.arange(batch_size), hosts):
        loader = loader_config(workers=workers, processes=processes)
        options = {"seed": seed, "batch_size": batch_size, "steps": steps, "unreadable": listed or UnreadableImages()}
        parts.append(train_batches(source, transform, loader, batch_indices=indices, **options))
    return [{name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts, strict=True)]


def fingerprints(batches: list[dict]) -> list[str]:
    return [hashlib.sha256(b"".join(batch[name].tobytes() for name in sorted(batch))).hexdigest() for batch in batches]


@pytest.fixture(scope="module")
def whole(corpus) -> list[str]:
    """Return the batches of one host with one thread, from the beginning to beyond the end of the first epoch."""
    return fingerprints(stream(corpus[0], workers=1, steps=range(STEPS + 5)))


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("hosts", [1, 4])
def test_exactly_the_planted_ones_are_substituted_and_each_is_listed_once_with_place_and_reason(corpus, epoch, hosts, capfd):
    (source, planted), order, listed = corpus, EpochOrder(1000, 0), UnreadableImages()
    assert (len(source), len(planted)) == (1000, 52)
    batches = stream(source, hosts=hosts, steps=range(STEPS * epoch, STEPS * (epoch + 1)), listed=listed)
    substituted = np.concatenate([batch["substituted"] for batch in batches])
    records = [order(1000 * epoch + place)[1] for place in np.flatnonzero(substituted)]
    assert sorted(records) == sorted(planted)
    assert {batch["image"].shape for batch in batches} == {(BATCH, 8, 8, 3)}
    stream(source, steps=range(2), listed=listed)  # Known images are not listed again.
    # libpng may write the beginning of a line.
    lines = re.findall(r"record \d+, .*; another takes its place", capfd.readouterr().err)
    assert len(lines) == 52
    for line in lines:
        record, path, reason = re.fullmatch(r"record (\d+), (\S+), is (.*); another takes its place", line).groups()
        assert Path(path).name == f"{record.zfill(4)}.jpg"
        assert re.search(UNREADABLE[planted[int(record)]][2], reason)
    assert listed.first(3) == [line.removesuffix("; another takes its place") for line in lines[:3]]


def test_every_other_record_comes_as_if_all_were_readable(corpus, capfd):
    (source, planted), order = corpus, EpochOrder(1000, 0)
    labels = np.concatenate([batch["labels"] for batch in stream(source)])[:, 0]
    for place in range(1000):
        _, record = order(place)
        if record not in planted:
            assert labels[place] == source.labels(record)[0]


@pytest.mark.parametrize(
    "how",
    [{"workers": 4}, {"hosts": 2, "workers": 1}, {"hosts": 2}, {"hosts": 4, "workers": 1}, {"hosts": 4}, {"processes": True}],
    ids=json.dumps,
)
def test_the_stream_is_the_same_on_any_number_of_hosts_and_workers(corpus, whole, how, capfd):
    assert fingerprints(stream(corpus[0], steps=range(STEPS + 5), **how)) == whole


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_stream_is_the_same_after_a_restart_at_any_step_on_any_number_of_hosts(corpus, whole, hosts, capfd):
    for first in range(1, STEPS + 4):
        assert fingerprints(stream(corpus[0], hosts=hosts, steps=range(first, first + 2))) == whole[first : first + 2]


def test_another_seed_gives_another_stream(corpus, whole, capfd):
    assert not set(fingerprints(stream(corpus[0], seed=1))) & set(whole)


class HalfUnreadable:
    """A source whose pixels are the number of their record; `unreadable` says which records cannot be read."""

    num_classes, class_names, max_labels = 100, tuple(map(str, range(100))), 1

    def __init__(self, unreadable):
        self._unreadable = unreadable

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return Record(b"" if self._unreadable(index) else np.full((2, 2, 3), index, np.uint8), (index,))

    def labels(self, index):
        return (index,)

    def locate(self, index):
        return f"number {index}"


def test_a_substitute_is_read_brings_its_own_label_and_is_drawn_anew_in_each_epoch(capfd):
    def at(seed, epoch, record):
        return read_or_substitute(HalfUnreadable(lambda index: index % 2), CAP, seed=seed, epoch=epoch, record=record)

    found = np.array([[at(seed, epoch, record)[0] for record in range(100)] for seed in (0, 1) for epoch in (0, 1)])
    assert np.all(found[:, ::2] == np.arange(0, 100, 2))
    assert np.all(found % 2 == 0)
    assert all(len(set(row[1::2])) > 20 for row in found)  # The substitutes are not the same few.
    assert len({tuple(row) for row in found}) == 4
    for record in range(100):
        number, (image, labels, _), _ = at(0, 0, record)
        assert labels == (number,) and np.all(image == number)


def test_with_no_readable_record_it_says_so_and_names_some(capfd):
    source = HalfUnreadable(lambda index: True)
    with pytest.raises(UserError, match=r"(?s)100 records .* place of record \d+ cannot be read either.*number \d+, is empty"):
        options = {"seed": 0, "batch_size": 4, "batch_indices": np.arange(4), "steps": range(1)}
        next(train_batches(source, lambda image, rng: image, loader_config(), unreadable=UnreadableImages(), **options))


def test_an_evaluation_ends_at_the_first_unreadable_image_and_names_it(corpus, capfd):
    source, planted = corpus
    options = {"batch_size": BATCH, "batch_indices": np.arange(BATCH)}
    with pytest.raises(UserError, match=r"/\d{4}\.jpg is .*\. Mend or remove it") as error:
        list(eval_batches(source, lambda image, rng: image[:8, :8], loader_config(), **options))
    named = int(re.search(r"(\d{4})\.jpg", str(error.value))[1])
    assert named == min(record for record, kind in planted.items() if "shows" not in kind)
