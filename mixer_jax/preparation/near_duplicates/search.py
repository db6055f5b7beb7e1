"""Which pairs of many thumbnails may be copies: a search that never compares all with all.

Descriptor: the 63 lowest frequencies but the mean of a part of the thumbnail (a DCT), each multiplied by its frequency, as in
photographs amplitudes fall with it, and of length 1. Two descriptors are alike if their cosine is at least MIN_COSINE. A crop, or
another shift of the scene, changes the descriptor. So parts of one picture are compared with the whole or with parts of the
other, as ALIGNMENTS lists, and each also with the mirror image.

Index: N descriptors lie in about sqrt(N) cells, of which each is the neighborhood of one of them, chosen at random. A query is
compared with the descriptors in the PROBES cells nearest to it: time for N images grows as N^1.5. Descriptors that are alike
beyond what is probed are missed; up to PROBES^2 descriptors are searched without loss.

Everything is exact in whole numbers, so that the candidates depend on neither threads nor batches.
"""

from collections.abc import Iterator

import numpy as np

from mixer_jax.preparation.near_duplicates.alignment import Part
from mixer_jax.preparation.near_duplicates.fingerprint import SIDE

FREQUENCIES = 8  # in each direction
MIN_COSINE = 0.7
MAX_CANDIDATES = 16  # of an image
PROBES = 16
UNIT = 127  # the length of a descriptor, of whole numbers
ROWS = 65536  # thumbnails that are described, and descriptors of a cell that are compared, at a time


def _corners(cut: float) -> list[Part]:
    """Return the four parts that are smaller by `cut` of the width and height."""
    return [Part(left, top, 1 - cut + left, 1 - cut + top) for left in (0, cut) for top in (0, cut)]


WHOLE, INNER = Part(0, 0, 1, 1), [Part(cut, cut, 1 - cut, 1 - cut) for cut in (0.06, 0.12)]
CORNERS, SMALLER_CORNERS = _corners(0.08), _corners(0.13)
PARTS = [WHOLE, *INNER, *CORNERS, *SMALLER_CORNERS]
ALIGNMENTS = [(WHOLE, WHOLE)]  # of the query and of the image in the index
ALIGNMENTS += [pair for part in (*INNER, *CORNERS) for pair in ((WHOLE, part), (part, WHOLE))]  # crops
ALIGNMENTS += [pair for four in (CORNERS, SMALLER_CORNERS) for pair in zip(four, reversed(four), strict=True)]  # shifts

HIT = np.dtype([("query", "u4"), ("number", "u4"), ("alikeness", "i4"), ("alignment", "u1"), ("mirrored", "?")])


def _basis(part: Part) -> np.ndarray:
    """Return whole numbers in float64, [63, SIDE * SIDE]: a thumbnail's product with them is the descriptor before scaling."""
    frequencies, edges = np.arange(FREQUENCIES), np.arange(SIDE + 1) / SIDE
    cosines = []
    for low, high in ((part.top, part.bottom), (part.left, part.right)):
        starts, ends = np.clip(edges[:-1], low, high), np.clip(edges[1:], low, high)
        phases = ((starts + ends) / 2 - low) / (high - low)
        norms = np.where(frequencies == 0, 1, np.sqrt(2))
        cosines.append(norms[:, None] * np.cos(np.pi * frequencies[:, None] * phases) * (ends - starts) * SIDE)
    weights = np.hypot(frequencies[:, None], frequencies)
    products = np.einsum("uv,uy,vx->uvyx", weights, *cosines).reshape(FREQUENCIES**2, SIDE**2)[1:]
    part_of_mean = products.sum(axis=1, keepdims=True) / SIDE**2
    return np.round((products - part_of_mean) * 2**12)


BASES = {part: _basis(part) for part in PARTS}


def describe(thumbnails: np.ndarray, part: Part) -> np.ndarray:
    """Return the descriptors, int8 [N, 63], of a part of each thumbnail of uint8 [N, SIDE, SIDE]."""
    descriptors = np.empty((len(thumbnails), FREQUENCIES**2 - 1), np.int8)
    for start in range(0, len(thumbnails), ROWS):
        rows = np.asarray(thumbnails[start : start + ROWS], np.float64).reshape(-1, SIDE**2)
        products = rows @ BASES[part].T  # exact: below 2^53
        norms = np.sqrt(np.sum(products * products, axis=1, keepdims=True))
        descriptors[start : start + ROWS] = np.round(UNIT * products / np.maximum(norms, 1))
    return descriptors


class Cells:
    """Descriptors by the one of about sqrt(N) chosen ones that each is nearest to."""

    def __init__(self, descriptors: np.ndarray):
        count = len(descriptors)
        chosen = np.random.default_rng(0).choice(count, int(np.ceil(np.sqrt(count))), replace=False) if count else []
        self._centers = (
            descriptors[np.sort(chosen)].astype(np.float32) if count else np.zeros((0, FREQUENCIES**2 - 1), np.float32)
        )
        home = self._nearest_cells(descriptors, 1)[:, 0]
        self._order = np.argsort(home, kind="stable").astype(np.uint32)
        self._ends = np.searchsorted(home[self._order], np.arange(len(self._centers) + 1))
        self._descriptors = descriptors[self._order]

    def search(self, queries: np.ndarray) -> np.ndarray:
        """Return which descriptors are alike to which of the queries, int8 [Q, 63]: HIT [hits] without alignment."""
        cells = self._nearest_cells(queries, PROBES)
        asked = np.argsort(cells.ravel(), kind="stable")
        ends = np.searchsorted(cells.ravel()[asked], np.arange(len(self._centers) + 1))
        hits = [np.empty(0, HIT)]
        for cell in range(len(self._centers)):
            asking = asked[ends[cell] : ends[cell + 1]] // max(1, cells.shape[1])
            first, last = self._ends[cell], min(self._ends[cell + 1], self._ends[cell] + ROWS)
            if len(asking) and first < last:
                products = queries[asking].astype(np.float32) @ self._descriptors[first:last].astype(np.float32).T
                alike = np.nonzero(products >= MIN_COSINE * UNIT**2)
                found = np.zeros(len(alike[0]), HIT)
                found["query"], found["number"] = asking[alike[0]], self._order[first:last][alike[1]]
                found["alikeness"] = products[alike]
                hits.append(best(found))
        return np.concatenate(hits)

    def _nearest_cells(self, descriptors: np.ndarray, count: int) -> np.ndarray:
        """Return the numbers of the nearest cells, [N, count] or as many as there are; of equally near ones the first."""
        count = min(count, len(self._centers))
        cells = np.empty((len(descriptors), count), np.uint32)
        for start in range(0, len(descriptors), ROWS // 16):
            products = descriptors[start : start + ROWS // 16].astype(np.float32) @ self._centers.T
            keys = products.astype(np.int64) * -len(self._centers) + np.arange(len(self._centers))  # all of a row are different
            if count == 1:
                cells[start : start + ROWS // 16, 0] = np.argmin(keys, axis=1)
            elif count:
                cells[start : start + ROWS // 16] = np.sort(np.argpartition(keys, count - 1, axis=1)[:, :count], axis=1)
        return cells


def search_part(cells: Cells, part: Part, thumbnails: np.ndarray) -> Iterator[np.ndarray]:
    """Yield HIT arrays: whose `part`, in `cells`, is alike to which of the thumbnails, to their mirror images, and to parts."""
    for mirrored in (False, True):
        queries = thumbnails[:, :, ::-1] if mirrored else thumbnails
        for number, (own, other) in enumerate(ALIGNMENTS):
            if other == part:
                hits = cells.search(describe(queries, own))
                hits["alignment"], hits["mirrored"] = number, mirrored
                yield hits


def best(hits: np.ndarray) -> np.ndarray:
    """Return of each query the MAX_CANDIDATES most alike, each once, by its best alignment; ordered by query and alikeness."""
    order = ("mirrored", "alignment")
    hits = hits[np.lexsort([*(hits[name] for name in order), -hits["alikeness"], hits["number"], hits["query"]])]
    new = np.ones(len(hits), bool)
    new[1:] = (hits["query"][1:] != hits["query"][:-1]) | (hits["number"][1:] != hits["number"][:-1])
    hits = hits[new]
    hits = hits[np.lexsort([hits["number"], -hits["alikeness"], hits["query"]])]
    starts = np.searchsorted(hits["query"], hits["query"])
    return hits[np.arange(len(hits)) - starts < MAX_CANDIDATES]
