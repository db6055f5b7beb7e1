"""The search for pairs of thumbnails that may be copies. It does not compare all thumbnails with all others.

Each part of a thumbnail has a descriptor: the 63 coefficients of its discrete cosine transform at the lowest frequencies, without
the mean. Each coefficient is multiplied by its frequency, because amplitudes fall with the frequency in photographs, and the
descriptor is scaled to the length UNIT. Two descriptors are similar if their cosine is at least MIN_COSINE. A crop or a shift of
the scene changes the descriptor. Parts of one picture are therefore compared with the whole of the other or with its parts, as
ALIGNMENTS lists. Each comparison is repeated with the mirror image.

The N descriptors in the index are divided among about sqrt(N) cells. The center of a cell is a descriptor chosen at random, and
each descriptor belongs to the cell with the nearest center. A query is compared with the descriptors in the PROBES cells whose
centers are nearest to it, so the time for N images grows as N^1.5. Similar descriptors in other cells are missed. No cell is left
out if there are at most PROBES^2 descriptors.

Cosines are computed exactly, from whole numbers, so the pairs that are found do not depend on threads or batches.
"""

from collections.abc import Iterator

import numpy as np

from mixer_jax.preparation.near_duplicates.alignment import Part
from mixer_jax.preparation.near_duplicates.fingerprint import SIDE

FREQUENCIES = 8  # in each direction
MIN_COSINE = 0.7
MAX_CANDIDATES = 16  # the most pairs that are proposed for an image
PROBES = 16  # cells in which a query is searched
UNIT = 127  # the length of a descriptor, whose components are rounded to whole numbers
BATCH_SIZE = 65536  # thumbnails that are processed at once, and the most descriptors of a cell that are compared with a query


def _corners(cut: float) -> list[Part]:
    """Return the four parts in the corners of a picture that lack the fraction `cut` of its width and height."""
    return [Part(left, top, 1 - cut + left, 1 - cut + top) for left in (0, cut) for top in (0, cut)]


WHOLE = Part(0, 0, 1, 1)
INNER = [Part(cut, cut, 1 - cut, 1 - cut) for cut in (0.06, 0.12)]
CORNERS, SMALLER_CORNERS = _corners(0.08), _corners(0.13)
PARTS = [WHOLE, *INNER, *CORNERS, *SMALLER_CORNERS]
ALIGNMENTS = [(WHOLE, WHOLE)]  # pairs of a part of the query and a part of the image in the index
ALIGNMENTS += [pair for part in (*INNER, *CORNERS) for pair in ((WHOLE, part), (part, WHOLE))]  # crops
ALIGNMENTS += [pair for four in (CORNERS, SMALLER_CORNERS) for pair in zip(four, reversed(four), strict=True)]  # shifts

# A pair that may be copies: the indices of the query and of the image in the index, UNIT^2 times the cosine of their descriptors,
# the index in ALIGNMENTS of the parts that are similar, and whether the query is mirrored.
HIT = np.dtype([("query", "u4"), ("number", "u4"), ("similarity", "i4"), ("alignment", "u1"), ("mirrored", "?")])


def _basis(part: Part) -> np.ndarray:
    """Return the weighted cosines of a part of a thumbnail, whole numbers as float64 [63, SIDE * SIDE].

    Their product with a thumbnail, [SIDE * SIDE], is the descriptor of the part before it is scaled.
    """
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
    for start in range(0, len(thumbnails), BATCH_SIZE):
        pixels = np.asarray(thumbnails[start : start + BATCH_SIZE], np.float64).reshape(-1, SIDE**2)
        products = pixels @ BASES[part].T  # This is exact, because all sums are below 2^53.
        norms = np.sqrt(np.sum(products * products, axis=1, keepdims=True))
        descriptors[start : start + BATCH_SIZE] = np.round(UNIT * products / np.maximum(norms, 1))
    return descriptors


class Cells:
    """An index of descriptors, int8 [N, 63], which are divided among about sqrt(N) cells."""

    def __init__(self, descriptors: np.ndarray):
        count = len(descriptors)
        chosen = np.random.default_rng(0).choice(count, int(np.ceil(np.sqrt(count))), replace=False) if count else []
        self._centers = (
            descriptors[np.sort(chosen)].astype(np.float32) if count else np.zeros((0, FREQUENCIES**2 - 1), np.float32)
        )
        cell_of = self._nearest_cells(descriptors, 1)[:, 0]
        # The descriptors in the order of their cells, and the positions in this order where the cells begin.
        self._order = np.argsort(cell_of, kind="stable").astype(np.uint32)
        self._bounds = np.searchsorted(cell_of[self._order], np.arange(len(self._centers) + 1))
        self._descriptors = descriptors[self._order]

    def search(self, queries: np.ndarray) -> np.ndarray:
        """Return the similar pairs of queries, int8 [Q, 63], and descriptors: HIT [H] without "alignment" and "mirrored".

        Of a cell with more than BATCH_SIZE descriptors, only the first BATCH_SIZE are compared. Of each query and cell, the
        MAX_CANDIDATES most similar descriptors are returned.
        """
        cells = self._nearest_cells(queries, PROBES)
        # The probes in the order of their cells, and the positions in this order where the cells begin.
        probes = np.argsort(cells.ravel(), kind="stable")
        bounds = np.searchsorted(cells.ravel()[probes], np.arange(len(self._centers) + 1))
        hits = [np.empty(0, HIT)]
        for cell in range(len(self._centers)):
            numbers = probes[bounds[cell] : bounds[cell + 1]] // max(1, cells.shape[1])
            first, last = self._bounds[cell], min(self._bounds[cell + 1], self._bounds[cell] + BATCH_SIZE)
            if len(numbers) and first < last:
                products = queries[numbers].astype(np.float32) @ self._descriptors[first:last].astype(np.float32).T
                similar = np.nonzero(products >= MIN_COSINE * UNIT**2)
                hits_in_cell = np.zeros(len(similar[0]), HIT)
                hits_in_cell["query"], hits_in_cell["number"] = numbers[similar[0]], self._order[first:last][similar[1]]
                hits_in_cell["similarity"] = products[similar]
                hits.append(keep_best(hits_in_cell))
        return np.concatenate(hits)

    def _nearest_cells(self, descriptors: np.ndarray, count: int) -> np.ndarray:
        """Return the cells with the nearest centers of each descriptor, uint32 [N, count], or all cells if there are fewer.

        Of equally near cells, the first is taken.
        """
        count = min(count, len(self._centers))
        cells = np.empty((len(descriptors), count), np.uint32)
        for start in range(0, len(descriptors), BATCH_SIZE // 16):
            batch = slice(start, start + BATCH_SIZE // 16)
            products = descriptors[batch].astype(np.float32) @ self._centers.T
            # The smallest keys are those of the nearest centers. The keys of a descriptor are all different.
            keys = products.astype(np.int64) * -len(self._centers) + np.arange(len(self._centers))
            if count == 1:
                cells[batch, 0] = np.argmin(keys, axis=1)
            elif count:
                cells[batch] = np.sort(np.argpartition(keys, count - 1, axis=1)[:, :count], axis=1)
        return cells


def search_part(cells: Cells, part: Part, thumbnails: np.ndarray) -> Iterator[np.ndarray]:
    """Yield arrays of HIT: the images whose `part` is similar to a part of a thumbnail or of its mirror image.

    Args:
        cells: The descriptors of this part of the images in the index.
        part: A part of PARTS.
        thumbnails: The queries, uint8 [Q, SIDE, SIDE].
    """
    for mirrored in (False, True):
        queries = thumbnails[:, :, ::-1] if mirrored else thumbnails
        for alignment, (query_part, other_part) in enumerate(ALIGNMENTS):
            if other_part == part:
                hits = cells.search(describe(queries, query_part))
                hits["alignment"], hits["mirrored"] = alignment, mirrored
                yield hits


def keep_best(hits: np.ndarray) -> np.ndarray:
    """Return the MAX_CANDIDATES most similar images of each query, sorted by query and falling similarity.

    Each pair occurs once, with the alignment in which it is most similar.
    """
    order = ("mirrored", "alignment")
    hits = hits[np.lexsort([*(hits[name] for name in order), -hits["similarity"], hits["number"], hits["query"]])]
    is_new_pair = np.ones(len(hits), bool)
    is_new_pair[1:] = (hits["query"][1:] != hits["query"][:-1]) | (hits["number"][1:] != hits["number"][:-1])
    hits = hits[is_new_pair]
    hits = hits[np.lexsort([hits["number"], -hits["similarity"], hits["query"]])]
    starts = np.searchsorted(hits["query"], hits["query"])
    return hits[np.arange(len(hits)) - starts < MAX_CANDIDATES]
