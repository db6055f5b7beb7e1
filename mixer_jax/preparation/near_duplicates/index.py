"""The index of references: it finds the nearest reference that an image is a copy of. references.py fills it.

An exact copy has the same bytes as the reference (SHA-256). For a near copy, the details of both images, once aligned, correlate
by at least `min_correlation` (alignment.py). The distance of two images is 1 minus this correlation. Only pairs that search.py
proposes are aligned.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mixer_jax.preparation.near_duplicates.alignment import correlate
from mixer_jax.preparation.near_duplicates.fingerprint import SIDE
from mixer_jax.preparation.near_duplicates.search import ALIGNMENTS, PARTS, Cells, describe, keep_best, search_part
from mixer_jax.preparation.spec import PreparationSpec

DIGITS = 3  # Distances are rounded to as many digits as are written, so that the written distance decides.


class Match(NamedTuple):
    """The reference that an image is a copy of."""

    kind: str  # "exact" or "near"
    distance: float  # 1 - correlation; 0 if the copy is exact
    number: int  # of the reference in the index


def distances(hits: np.ndarray, queries: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Return the distance of each pair that was proposed, float64 [H].

    Args:
        hits: The pairs, HIT [H].
        queries: The thumbnails to which "query" refers, uint8 [Q, SIDE, SIDE].
        thumbnails: The thumbnails to which "number" refers, uint8 [N, SIDE, SIDE].
    """

    def measure(hit: np.void) -> float:
        query_part, other_part = ALIGNMENTS[hit["alignment"]]
        return 1 - correlate(queries[hit["query"]], query_part, thumbnails[hit["number"]], other_part, hit["mirrored"])

    return np.round(np.fromiter(map(measure, hits), np.float64, len(hits)), DIGITS)


def is_near(distance: np.ndarray | float, min_correlation: float) -> np.ndarray | bool:
    """Return whether a distance, or each of several, is that of a copy."""
    return distance <= round(1 - min_correlation, 9)


class Index:
    """References, by the SHA-256 of their files and by their fingerprints. A reference's number is its index in both lists."""

    def __init__(
        self,
        digests: list[bytes],
        fingerprints: list[np.ndarray | None],
        min_correlation: float = PreparationSpec.near_duplicate_correlation,
    ):
        self._min_correlation = min_correlation
        self._number_of = {digest: number for number, digest in reversed(list(enumerate(digests)))}  # the first of equal files
        self._numbers = [number for number, fingerprint in enumerate(fingerprints) if fingerprint is not None]
        self._thumbnails = _stack(fingerprints[number] for number in self._numbers)
        self._cells = {part: Cells(describe(self._thumbnails, part)) for part in PARTS} if self._numbers else {}

    def find(self, digests: list[bytes], fingerprints: list[np.ndarray | None]) -> list[Match | None]:
        """Return, for each image, the nearest reference that it is a copy of, or None. Of equally near ones, return the first."""
        numbers = [self._number_of.get(digest) for digest in digests]
        matches = [None if number is None else Match("exact", 0, number) for number in numbers]
        queries = [i for i, match in enumerate(matches) if match is None and fingerprints[i] is not None]
        for i, match in zip(queries, self.nearest(_stack(fingerprints[i] for i in queries)), strict=True):
            matches[i] = match
        return matches

    def nearest(self, thumbnails: np.ndarray) -> list[Match | None]:
        """Return the same as `find` for thumbnails, uint8 [Q, SIDE, SIDE], whose files are no exact copies."""
        matches: list[Match | None] = [None] * len(thumbnails)
        if not self._cells or not len(thumbnails):
            return matches
        hits = keep_best(
            np.concatenate([hits for part, cells in self._cells.items() for hits in search_part(cells, part, thumbnails)])
        )
        for hit, distance in zip(hits, distances(hits, thumbnails, self._thumbnails), strict=True):
            match = Match("near", float(distance), self._numbers[hit["number"]])
            earlier = matches[hit["query"]]
            if is_near(distance, self._min_correlation) and (earlier is None or match[1:] < earlier[1:]):
                matches[hit["query"]] = match
        return matches


def _stack(thumbnails: Iterable[np.ndarray]) -> np.ndarray:
    """Return thumbnails as one array, uint8 [N, SIDE, SIDE], also if there are none."""
    return np.array(list(thumbnails), np.uint8).reshape(-1, SIDE, SIDE)
