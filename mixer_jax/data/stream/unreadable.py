"""What happens in training to a record whose image cannot be read: another takes its place, and it is listed.

Which other one is a pure function of (seed, epoch, record), so the stream of batches is the same on any number of hosts and
workers and after any restart. In a mixture it is one of the same part, so that the parts keep their shares. Not here: which
images are bad (images.py), and how many are too many (training/unreadable_share.py).
"""

import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mixer_jax.data.images import decode as images
from mixer_jax.data.images.partial_jpeg import Rows
from mixer_jax.data.sources.mixture import Mixture
from mixer_jax.data.sources.record import Record, Source
from mixer_jax.errors import UserError

SUBSTITUTE_STREAM = 2  # of a run's seed; order.py and loader.py have the others
KEPT = 100  # messages; of what was met after them only the numbers are kept, as there may be millions
MOST_SUBSTITUTES = 100  # tried for one record; with half of all records bad, none of them is good once in 10^30


class Met(NamedTuple):
    """A bad record that was met: its number, and where it comes from and what is wrong."""

    record: int
    text: str


class BadRecords:
    """Bad records that this host has met, each listed once on standard error."""

    def __init__(self):
        self._met, self._first = set(), []

    def add(self, met: Iterable[Met]) -> None:
        for record, text in met:
            if record not in self._met:
                self._met.add(record)
                self._first += [text] if len(self._first) < KEPT else []
                line = f"{text}; another takes its place\n"
                tqdm.write(line, end="", file=sys.stderr)  # in one piece: libpng and libjpeg write there too, past Python

    def first(self, count: int) -> list[str]:
        """The first `count` (at most KEPT) that were met: index, source and what is wrong."""
        return self._first[:count]


def read(source: Source, max_pixels: int, *, seed: int, epoch: int, record: int) -> tuple[int, Record, list[Met]]:
    """(its number, a record with its own labels, the bad ones that were met): the one asked for or, if that is bad, another.

    It is ready for a crop. Raises UserError when MOST_SUBSTITUTES are bad too.
    """
    met = []
    for candidate in _candidates(source, seed, epoch, record):
        try:
            return candidate, decode_for_crop(source[candidate], max_pixels), met
        except images.BadImageError as error:
            met.append(Met(candidate, f"record {candidate}, {source.describe(candidate)}, is {error}"))
    raise UserError(
        f"{MOST_SUBSTITUTES} records that were to take the place of record {record} are bad too. Mend the data.\n"
        + "\n".join(text for _, text in met[:3])
    )


def _candidates(source: Source, seed: int, epoch: int, record: int) -> Iterator[int]:
    yield record
    rng = np.random.default_rng(np.random.SeedSequence([seed, SUBSTITUTE_STREAM, epoch, record]))
    peers = source.peers(record) if isinstance(source, Mixture) else range(len(source))
    yield from (int(other) for other in rng.integers(peers.start, peers.stop, size=MOST_SUBSTITUTES))


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
