"""Position in the endless stream of training images -> (epoch, record): a pure function of the seed.

An epoch has every record once, in a random permutation of its own, computed record by record and never held in memory. In every
BLOCK positions of a mixture each part has its share exactly, in random places, and goes through its own epochs at its own pace.
"""

from bisect import bisect_right
from functools import lru_cache

import numpy as np

from mixer_jax.data.sources.mixture import BLOCK, Mixture
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.index_shuffle import index_shuffle

ORDER_STREAM, MIXTURE_STREAM = 0, 3  # of a run's seed; loader.py and unreadable.py have the others


class EpochOrder:
    """The order of one source, or of part number `part` of a mixture: every record once an epoch."""

    def __init__(self, num_examples: int, seed: int, part: int = 0):
        self._num_examples, self._seed, self._part = num_examples, seed, part

    def __call__(self, position: int) -> tuple[int, int]:
        epoch, index = divmod(position, self._num_examples)
        return epoch, _shuffle(index, self._num_examples, (self._seed, ORDER_STREAM, epoch, self._part))


class MixtureOrder:
    """The order of a mixture. Its part number p has slots bounds[p] to bounds[p + 1] of every BLOCK positions, then permuted.

    `epoch` is that of the record's own part, which comes round the sooner the larger its weight and the fewer its records.
    """

    def __init__(self, mixture: Mixture, seed: int):
        self._bounds, self._starts, self._seed = mixture.bounds, mixture.starts, seed
        self._orders = [EpochOrder(len(source), seed, part) for part, source in enumerate(mixture.parts)]

    def __call__(self, position: int) -> tuple[int, int]:
        block, index = divmod(position, BLOCK)
        slot = _shuffle(index, BLOCK, (self._seed, MIXTURE_STREAM, block))
        part = bisect_right(self._bounds, slot) - 1
        first, after = self._bounds[part], self._bounds[part + 1]
        epoch, record = self._orders[part](block * (after - first) + slot - first)
        return epoch, self._starts[part] + record


def make_order(source: Source, seed: int) -> EpochOrder | MixtureOrder:
    """Return the order of a source's or a mixture's records."""
    return MixtureOrder(source, seed) if isinstance(source, Mixture) else EpochOrder(len(source), seed)


def _shuffle(index: int, length: int, key: tuple[int, ...]) -> int:
    """Return where a permutation of `length` indices, chosen by `key`, puts this one."""
    return index_shuffle(index, max_index=length - 1, seed=_seed_of(key), rounds=4)


@lru_cache(maxsize=1024)  # few epochs are under way at once
def _seed_of(key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])
