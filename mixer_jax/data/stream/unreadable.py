"""Substitutes: in training, a record whose image cannot be read is replaced by another record, and it is listed.

The choice of the substitute is a pure function of (seed, epoch, record), so the stream of batches is the same on any number of
hosts and workers and after any restart. In a mixture, the substitute is a record of the same part, so that the parts keep their
shares. images/decode.py decides which images are unreadable, and training/unreadable_share.py decides how many are too many.
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

SUBSTITUTE_STREAM = 2  # number of this random stream of the run's seed; order.py and loader.py define the other streams
MAX_MESSAGES = 100  # messages that are kept; of later images, of which there may be millions, only the record's number is kept
# The most substitutes tried for one record. If half of all images are unreadable, all of them are with probability 10^-30.
MAX_SUBSTITUTES = 100


class UnreadableImage(NamedTuple):
    """A record whose image cannot be read, and a message about it."""

    record: int
    message: str  # says where the image comes from and what is wrong with it


class UnreadableImages:
    """The unreadable images that this host has substituted. Each is listed once on standard error."""

    def __init__(self):
        self._records: set[int] = set()
        self._messages: list[str] = []

    def add(self, images: Iterable[UnreadableImage]) -> None:
        """List those of `images` that have not been listed yet."""
        for record, message in images:
            if record not in self._records:
                self._records.add(record)
                self._messages += [message] if len(self._messages) < MAX_MESSAGES else []
                line = as_message(f"{message}; another takes its place\n")
                # The line and its end are one write, because libpng and libjpeg also write to standard error, without Python.
                tqdm.write(line, end="", file=sys.stderr)

    def first(self, count: int) -> list[str]:
        """Return the messages about the first `count` images, at most MAX_MESSAGES."""
        return self._messages[:count]


def read_or_substitute(
    source: Source, max_pixels: int, *, seed: int, epoch: int, record: int
) -> tuple[int, Record, list[UnreadableImage]]:
    """Return a record decoded for a training crop, or a substitute if its image cannot be read.

    Args:
      source: the training data.
      max_pixels: config.loader.max_pixels.
      seed: the run's seed.
      epoch: the epoch of the record.
      record: the number of the record.

    Returns:
      The number of the record that was read, this record with its own labels, and the unreadable images that were tried before.

    Raises:
      UserError: none of MAX_SUBSTITUTES substitutes can be read either.
      EnvironmentFault: the same, if the disk failed to deliver at least one of these images.
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
    """Yield the record itself, and then MAX_SUBSTITUTES substitutes in the order in which they are tried."""
    yield record
    rng = np.random.default_rng(np.random.SeedSequence([seed, SUBSTITUTE_STREAM, epoch, record]))
    peers = source.peers(record) if isinstance(source, Mixture) else range(len(source))
    yield from (int(other) for other in rng.integers(peers.start, peers.stop, size=MAX_SUBSTITUTES))
