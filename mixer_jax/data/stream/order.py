"""The order of training: from a position in the endless stream to (epoch, record), as a pure function of the seed.

Each epoch contains every record once, in a random permutation of its own. The permutation is computed one record at a time and is
never held in memory. In a mixture, each part has exactly its share of every BLOCK positions, at random positions within them, and
each part has epochs of its own.
"""

from bisect import bisect_right
from functools import lru_cache

import numpy as np

from mixer_jax.data.sources.mixture import BLOCK, Mixture
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.index_shuffle import index_shuffle

# Numbers of two random streams of the run's seed. loader.py and unreadable.py define the other streams.
ORDER_STREAM, MIXTURE_STREAM = 0, 3


class EpochOrder:
    """The order of one source, or of part number `part` of a mixture, with every record once in each epoch."""

    def __init__(self, num_examples: int, seed: int, part: int = 0):
        self._num_examples, self._seed, self._part = num_examples, seed, part

    def __call__(self, position: int) -> tuple[int, int]:
        """Return (epoch, record) at a position of the stream."""
        epoch, index = divmod(position, self._num_examples)
        return epoch, _shuffle(index, self._num_examples, (self._seed, ORDER_STREAM, epoch, self._part))


class MixtureOrder:
    """The order of a mixture.

    Each block of BLOCK positions has BLOCK slots. The slots from mixture.bounds[p] up to mixture.bounds[p + 1] belong to part
    number p. Within the block, the slots are permuted. The epoch of a record is that of its own part. A part with a larger weight
    or fewer records passes through its epochs faster.
    """

    def __init__(self, mixture: Mixture, seed: int):
        self._bounds, self._starts, self._seed = mixture.bounds, mixture.starts, seed
        self._orders = [EpochOrder(len(source), seed, part) for part, source in enumerate(mixture.parts)]

    def __call__(self, position: int) -> tuple[int, int]:
        """Return (epoch, record) at a position of the stream."""
        block, index = divmod(position, BLOCK)
        slot = _shuffle(index, BLOCK, (self._seed, MIXTURE_STREAM, block))
        part = bisect_right(self._bounds, slot) - 1
        first, after = self._bounds[part], self._bounds[part + 1]
        epoch, record = self._orders[part](block * (after - first) + slot - first)
        return epoch, self._starts[part] + record


def make_order(source: Source, seed: int) -> EpochOrder | MixtureOrder:
    """Return the order of the records of a source, which may be a mixture."""
    return MixtureOrder(source, seed) if isinstance(source, Mixture) else EpochOrder(len(source), seed)


def _shuffle(index: int, length: int, key: tuple[int, ...]) -> int:
    """Return the index to which a permutation of `length` indices, chosen by `key`, maps `index`."""
    return index_shuffle(index, max_index=length - 1, seed=_seed_of(key), rounds=4)


@lru_cache(maxsize=1024)  # Only a few epochs and blocks are in use at the same time.
def _seed_of(key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])
