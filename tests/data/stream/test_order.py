"""An epoch has every record once, in an order of its own. The parts of a mixture have exact shares and epochs of their own."""

import hashlib
from collections import Counter

import grain.experimental
import numpy as np
import pytest
from tiny_config import loader_config

from mixer_jax.config import dataset, default_config, mixture
from mixer_jax.data.sources.mixture import BLOCK, Mixture
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Record
from mixer_jax.data.stream import index_shuffle
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.order import EpochOrder, MixtureOrder
from mixer_jax.data.stream.unreadable import UnreadableImages, read_or_substitute
from mixer_jax.errors import UserError
from mixer_jax.validation import validate


class Part:
    """A source whose pixels are (first + record) mod 256. Odd records can be made unreadable. Record i has class i mod K."""

    max_labels = 1

    def __init__(self, length: int, first: int = 0, class_names: tuple[str, ...] = ("a",), odd_are_unreadable: bool = False):
        self._length, self._first, self._odd_are_unreadable = length, first, odd_are_unreadable
        self.class_names, self.num_classes = class_names, len(class_names)

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        unreadable = self._odd_are_unreadable and index % 2
        return Record(b"" if unreadable else np.full((2, 2, 3), (self._first + index) % 256, np.uint8), self.labels(index))

    def labels(self, index):
        return (index % self.num_classes,)

    def locate(self, index):
        return f"{self._first} + {index}"


def three_parts() -> Mixture:
    """Return a mixture of records 0 to 2999 (one half), 3000 to 7999 (one third) and 8000 to 49999 (one sixth)."""
    return Mixture({"small": Part(3000), "middle": Part(5000, 3000), "large": Part(42000, 8000)}, [3, 2, 1])


@pytest.mark.parametrize("length", [1, 2, 13, 16, 100, 255])
@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_every_epoch_has_every_record_once(length, seed):
    order = EpochOrder(length, seed)
    for epoch in range(4):
        places = [order(epoch * length + place) for place in range(length)]
        assert {found for found, _ in places} == {epoch}
        assert sorted(record for _, record in places) == list(range(length))


def test_no_two_epochs_or_seeds_have_the_same_order():
    orders = [
        tuple(EpochOrder(100, seed)(100 * epoch + place)[1] for place in range(100)) for seed in range(5) for epoch in range(5)
    ]
    assert len(set(orders)) == 25
    assert tuple(range(100)) not in orders


def test_a_record_may_be_anywhere_in_an_epoch_and_its_neighbor_anywhere_else():
    order = EpochOrder(256, 0)
    epochs = np.array([[order(256 * epoch + place)[1] for place in range(256)] for epoch in range(60)])
    places = np.argsort(epochs, axis=1)  # [epoch, record]
    np.testing.assert_allclose(places.mean(0), 127.5, atol=45)  # The standard deviation of a mean over 60 epochs is 9.5.
    here, next_door = places[:, :-1].ravel(), places[:, 1:].ravel()
    assert abs(np.corrcoef(here, next_door)[0, 1]) < 0.05
    assert np.mean(next_door - here == 1) < 0.01


def test_in_every_block_each_part_has_its_share_exactly_and_everywhere():
    order, parts = MixtureOrder(three_parts(), 0), np.repeat([0, 1, 2], [3000, 5000, 42000])
    for block in (0, 7_000_000):
        found = parts[[order(block * BLOCK + place)[1] for place in range(BLOCK)]]
        np.testing.assert_allclose(np.bincount(found), [BLOCK / 2, BLOCK / 3, BLOCK / 6], atol=1)
        for batch in found.reshape(-1, 4096):  # The standard deviation of a share is 32 of 2048.
            np.testing.assert_allclose(np.bincount(batch), [2048, 1365, 683], atol=200)


def test_each_part_goes_through_its_own_epochs():
    order = MixtureOrder(three_parts(), 0)
    seen = Counter(order(position) for position in range(BLOCK))
    assert set(seen.values()) == {1}  # No record is seen twice in an epoch.
    for records, positions in ((range(3000), BLOCK / 2), (range(3000, 8000), BLOCK / 3), (range(8000, 50000), BLOCK / 6)):
        whole = int(positions) // len(records)
        assert {(epoch, record) for epoch in range(whole) for record in records} <= seen.keys()
        assert not any(epoch > whole for epoch, record in seen if record in records)


def test_blocks_seeds_and_parts_differ_in_their_order():
    orders = [
        tuple(MixtureOrder(three_parts(), seed)(BLOCK * block + place)[1] for place in range(64))
        for seed in (0, 1)
        for block in (0, 1)
    ]
    assert len(set(orders)) == 4


def test_parts_of_one_length_have_orders_of_their_own():
    alike = [EpochOrder(100, 0, part) for part in (0, 1)]
    orders = [[order(place)[1] for place in range(100)] for order in alike]
    assert abs(np.corrcoef(*orders)[0, 1]) < 0.4


def stream(source, *, hosts=1, workers=1, steps=range(6)) -> list[dict]:
    def transform(image, rng):
        drawn = rng.integers(0, 256, image.shape, np.uint8)
        drawn[0, 0] = image[0, 0]
        return drawn

    options = {"seed": 3, "batch_size": 16, "steps": steps, "unreadable": UnreadableImages()}
    parts = [
        train_batches(source, transform, loader_config(workers=workers, prefetch=16), batch_indices=indices, **options)
        for indices in np.split(np.arange(16), hosts)
    ]
    return [{name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts, strict=True)]


def fingerprints(batches: list[dict]) -> list[str]:
    return [hashlib.sha256(b"".join(batch[name].tobytes() for name in sorted(batch))).hexdigest() for batch in batches]


@pytest.mark.parametrize("how", [{"hosts": 2}, {"hosts": 4}, {"workers": 8}, {"hosts": 4, "workers": 3}])
def test_the_stream_of_a_mixture_is_the_same_on_any_number_of_hosts_and_workers_and_after_a_restart(how):
    whole = fingerprints(stream(three_parts()))
    assert fingerprints(stream(three_parts(), **how)) == whole
    for first in (1, 4):
        assert fingerprints(stream(three_parts(), steps=range(first, 6), **how)) == whole[first:]


def test_an_unreadable_image_of_a_mixture_is_substituted_by_one_of_its_own_part(capfd):
    source = Mixture({"sound": Part(100), "half": Part(100, 100, odd_are_unreadable=True)}, [1, 1])
    unreadable = set()
    for record in range(100, 200):
        used, decoded, substituted = read_or_substitute(source, 2**20, seed=0, epoch=0, record=record)
        assert used == decoded.image[0, 0, 0] >= 100 and used % 2 == 0
        unreadable |= set(substituted)
    assert len(unreadable) == 50


def test_classes_of_a_mixture_are_joined_by_name():
    source = Mixture({"one": Part(2, 0, ("cat", "dog")), "two": Part(3, 2, ("dog", "owl", "cat"))}, [1, 1])
    assert source.class_names == ("cat", "dog", "owl")
    assert [source.labels(i) for i in range(5)] == [source[i].labels for i in range(5)] == [(0,), (1,), (1,), (2,), (0,)]
    assert [source.locate(i) for i in (1, 2)] == ["0 + 1", "2 + 0"]


def test_a_config_names_the_parts_and_their_weights():
    config = default_config()
    config.total.steps = 1
    config.data = mixture(train=dataset("digits", "train", weight=3.0), test=dataset("digits", "test"))
    validate(config)
    source = open_source(config.data)
    assert (len(source), source.num_classes, source.bounds) == (1797, 10, [0, BLOCK // 4, BLOCK])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (mixture(a=dataset("digits", weight=0.0)), r"data.parts.a.weight is 0.0: it must be in"),
        (mixture(a=dataset()), "data.parts.a.source is ''"),
        (mixture(a=dataset("digits", verify="all")), "data.parts.a.verify is 'all': it must be one of full, ends"),
        (mixture(a=mixture(b=dataset("digits"))), "a mixture has no mixtures"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(data, message):
    config = default_config()
    config.data = data
    with pytest.raises(UserError, match=message):
        validate(config)


def test_what_only_the_parts_show_is_refused_at_opening():
    with pytest.raises(UserError, match=r"data.parts.b.weight is less than one in 65536 of all"):
        Mixture({"a": Part(5), "b": Part(5)}, [1, 1e-6])
    with pytest.raises(UserError, match=r"data.parts.b has two classes of one name"):
        Mixture({"a": Part(5), "b": Part(5, 0, ("crane", "crane"))}, [1, 1])


def test_the_shuffle_is_grains_own_also_of_a_grain_that_keeps_it_elsewhere(monkeypatch):
    assert index_shuffle.index_shuffle is grain.experimental.index_shuffle
    monkeypatch.setattr(index_shuffle, "NAME", "grain.not_there")
    assert index_shuffle.load_index_shuffle() is grain.experimental.index_shuffle
