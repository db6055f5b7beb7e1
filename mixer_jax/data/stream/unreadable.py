"""What happens in training to a record whose image cannot be read: another takes its place, and it is listed.

Which other one is a pure function of (seed, epoch, record), so the stream of batches is the same on any number of hosts and
workers and after any restart. In a mixture it is one of the same part, so that the parts keep their shares. Not here: which
images cannot be read (images/decode.py), and how many are too many (training/unreadable_share.py).
"""

import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mixer_jax.data.images.decode import UnavailableImageError, UnreadableImageError
from mixer_jax.data.sources.mixture import Mixture
from mixer_jax.data.sources.source import Record, Source
from mixer_jax.errors import EnvironmentFault, UserError, as_message

SUBSTITUTE_STREAM = 2  # of a run's seed; order.py and loader.py have the others
MAX_MESSAGES = 100  # that are kept; of later images only the record's number is, as there may be millions
MAX_SUBSTITUTES = 100  # tried for one record; with half of all images unreadable, none of them is sound once in 10^30


class UnreadableImage(NamedTuple):
    """A record whose image cannot be read, and the message about it."""

    record: int
    message: str  # where it comes from and what is wrong


class UnreadableImages:
    """The unreadable images that this host has substituted, each listed once on standard error."""

    def __init__(self):
        self._records: set[int] = set()
        self._messages: list[str] = []

    def add(self, images: Iterable[UnreadableImage]) -> None:
        """List those that are new."""
        for record, message in images:
            if record not in self._records:
                self._records.add(record)
                self._messages += [message] if len(self._messages) < MAX_MESSAGES else []
                line = f"{message}; another takes its place\n"
                tqdm.write(
                    as_message(line), end="", file=sys.stderr
                )  # in one piece: libpng and libjpeg write there too, past Python

    def first(self, count: int) -> list[str]:
        """Return the messages about the first `count` (at most MAX_MESSAGES): record, source and what is wrong."""
        return self._messages[:count]


def read_or_substitute(
    source: Source, max_pixels: int, *, seed: int, epoch: int, record: int
) -> tuple[int, Record, list[UnreadableImage]]:
    """Read a record for a crop, or another one if its image cannot be read.

    Returns the number of the record that was read, that record with its own labels, and the unreadable images that were tried
    before it. Raises UserError when MAX_SUBSTITUTES cannot be read either, and EnvironmentFault where it is the disk that does
    not give them.
    """
    unreadable: list[UnreadableImage] = []
    kind: type[Exception] = UserError
    for candidate in _candidates(source, seed, epoch, record):
        try:
            return candidate, source[candidate].decode_for_crop(max_pixels), unreadable
        except UnreadableImageError as error:
            kind = EnvironmentFault if isinstance(error, UnavailableImageError) else kind
            unreadable.append(UnreadableImage(candidate, f"record {candidate}, {source.locate(candidate)}, is {error}"))
    mend = "Mend the data" if kind is UserError else "See to the disk: the same command goes on from the last checkpoint"
    raise kind(
        f"{MAX_SUBSTITUTES} records that were to take the place of record {record} cannot be read either. {mend}.\n"
        + "\n".join(message for _, message in unreadable[:3])
    )


def _candidates(source: Source, seed: int, epoch: int, record: int) -> Iterator[int]:
    """Yield the record itself, then its substitutes in the order in which they are tried."""
    yield record
    rng = np.random.default_rng(np.random.SeedSequence([seed, SUBSTITUTE_STREAM, epoch, record]))
    peers = source.peers(record) if isinstance(source, Mixture) else range(len(source))
    yield from (int(other) for other in rng.integers(peers.start, peers.stop, size=MAX_SUBSTITUTES))
