"""What happens in training to a record whose image cannot be read: another takes its place, and it is listed.

Which other one is a pure function of (seed, epoch, record), so the stream of batches is the same on any number of hosts and
threads and after any restart. In a mixture it is one of the same part, so that the parts keep their shares. Not here: which
images are bad (images.py), and how many are too many (training/bad_share.py).
"""

import sys
import threading
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from mixer_jax.config import UserError
from mixer_jax.data import images
from mixer_jax.data.mixture import Mixture
from mixer_jax.data.record import Record, Source
from mixer_jax.data.rows import Rows

SUBSTITUTE_STREAM = 2  # of a run's seed; order.py and loader.py have the others
KEPT = 100  # messages; of what was met after them only the numbers are kept, as there may be millions
MOST_SUBSTITUTES = 100  # tried for one record; with half of all records bad, none of them is good once in 10^30


class BadRecords:
    """Bad records that this process has met, each listed once on standard error. Its methods may be called by many threads."""

    def __init__(self, source: Source, max_pixels: int):
        self._source, self._max_pixels = source, max_pixels
        self._lock, self._met, self._first = threading.Lock(), set(), []

    def read(self, seed: int, epoch: int, record: int) -> tuple[int, Record]:
        """(its number, a record with its own labels), ready for a crop: the one asked for or, if that is bad, another.

        Raises UserError when MOST_SUBSTITUTES are bad too.
        """
        for candidate in self._candidates(seed, epoch, record):
            try:
                return candidate, decode_for_crop(self._source[candidate], self._max_pixels)
            except images.BadImageError as error:
                self._list(candidate, error)
        raise UserError(
            f"{MOST_SUBSTITUTES} records that were to take the place of record {record} are bad too. Mend the data.\n"
            + "\n".join(self.first(3))
        )

    def first(self, count: int) -> list[str]:
        """The first `count` (at most KEPT) that were met: index, source and what is wrong."""
        with self._lock:
            return self._first[:count]

    def _candidates(self, seed: int, epoch: int, record: int) -> Iterator[int]:
        yield record
        rng = np.random.default_rng(np.random.SeedSequence([seed, SUBSTITUTE_STREAM, epoch, record]))
        peers = self._source.peers(record) if isinstance(self._source, Mixture) else range(len(self._source))
        yield from (int(other) for other in rng.integers(peers.start, peers.stop, size=MOST_SUBSTITUTES))

    def _list(self, record: int, error: images.BadImageError) -> None:
        with self._lock:
            if record in self._met:
                return
            text = f"record {record}, {self._source.describe(record)}, is {error}"
            self._met.add(record)
            self._first += [text] if len(self._first) < KEPT else []
            line = f"{text}; another takes its place\n"
            tqdm.write(line, end="", file=sys.stderr)  # in one piece: libpng and libjpeg write there too, past Python


def decode(record: Record, max_pixels: int, *, strict: bool) -> Record:
    """With the image as pixels, if it is not that already. Raises images.BadImageError."""
    if not isinstance(record.image, bytes):
        return record
    return Record(images.decode(record.image, max_pixels, strict=strict), record.labels)


def decode_for_crop(record: Record, max_pixels: int) -> Record:
    """As `decode` with `strict`, but where a file allows it only those rows that are asked for, when they are."""
    if not record.by_rows:
        return decode(record, max_pixels, strict=True)
    return Record(Rows(record.image, max_pixels), record.labels)
