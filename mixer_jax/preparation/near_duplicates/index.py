"""Whether images are copies of others, of which the nearest is found. Whose images: references.py and within.py.

Exact: the bytes of both files are the same (SHA-256). Near: the details of both, once aligned, correlate by at least
`min_correlation` (alignment.py). Their distance is 1 less the correlation. Only pairs that search.py proposes are aligned.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from mixer_jax.preparation.near_duplicates.alignment import correlate
from mixer_jax.preparation.near_duplicates.fingerprint import SIDE
from mixer_jax.preparation.near_duplicates.search import ALIGNMENTS, PARTS, Cells, best, describe, search_part
from mixer_jax.preparation.spec import PreparationSpec

DIGITS = 3  # of a distance: it decides no more than what is written


class Match(NamedTuple):
    """That an image is a copy of a reference."""

    kind: str  # exact or near
    distance: float  # 1 - correlation; 0 if exact
    number: int  # of the reference


def distances(hits: np.ndarray, queries: np.ndarray, thumbnails: np.ndarray, map_: Callable = map) -> np.ndarray:
    """Return the distance of each pair of HIT: float64 [hits]. `map_` may be that of a pool of threads."""

    def measure(hit: np.void) -> float:
        own, other = ALIGNMENTS[hit["alignment"]]
        return 1 - correlate(queries[hit["query"]], own, thumbnails[hit["number"]], other, hit["mirrored"])

    return np.round(np.fromiter(map_(measure, hits), np.float64, len(hits)), DIGITS)


def is_near(distance: np.ndarray | float, min_correlation: float) -> np.ndarray | bool:
    """Return whether a distance is that of a copy."""
    return distance <= round(1 - min_correlation, 9)


class Index:
    """References by the SHA-256 of their files and by their fingerprints. A reference's number is its index in both lists."""

    def __init__(
        self,
        digests: list[bytes],
        fingerprints: list[np.ndarray | None],
        min_correlation: float = PreparationSpec.near_duplicate_correlation,
    ):
        self._min_correlation = min_correlation
        self._number_of = {digest: number for number, digest in reversed(list(enumerate(digests)))}  # the first of equal ones
        self._numbers = [number for number, fingerprint in enumerate(fingerprints) if fingerprint is not None]
        self._thumbnails = _stack(fingerprints[number] for number in self._numbers)
        self._cells = {part: Cells(describe(self._thumbnails, part)) for part in PARTS} if self._numbers else {}

    def find(self, digests: list[bytes], fingerprints: list[np.ndarray | None]) -> list[Match | None]:
        """Return, for each image, the reference that it is a copy of: the nearest, then the first."""
        numbers = [self._number_of.get(digest) for digest in digests]
        matches = [None if number is None else Match("exact", 0, number) for number in numbers]
        asking = [i for i, match in enumerate(matches) if match is None and fingerprints[i] is not None]
        for i, match in zip(asking, self.nearest(_stack(fingerprints[i] for i in asking)), strict=True):
            matches[i] = match
        return matches

    def nearest(self, thumbnails: np.ndarray) -> list[Match | None]:
        """Return the nearest reference that is near enough for each of uint8 [Q, SIDE, SIDE], of equally near ones the first."""
        matches: list[Match | None] = [None] * len(thumbnails)
        if not self._cells or not len(thumbnails):
            return matches
        hits = best(
            np.concatenate([hits for part, cells in self._cells.items() for hits in search_part(cells, part, thumbnails)])
        )
        for hit, distance in zip(hits, distances(hits, thumbnails, self._thumbnails), strict=True):
            match = Match("near", float(distance), self._numbers[hit["number"]])
            earlier = matches[hit["query"]]
            if is_near(distance, self._min_correlation) and (earlier is None or match[1:] < earlier[1:]):
                matches[hit["query"]] = match
        return matches


def _stack(thumbnails: Iterable[np.ndarray]) -> np.ndarray:
    return np.array(list(thumbnails), np.uint8).reshape(-1, SIDE, SIDE)
