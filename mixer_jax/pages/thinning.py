"""Thins a curve to the points that its drawing needs: the M4 aggregation (Jugel et al., VLDB 2014).

The points are divided into buckets of consecutive points. Of each bucket, the first, the last, the lowest and the highest point
are kept. A chart that has no more pixels than buckets is drawn as if no point had been left out.
"""

from collections.abc import Sequence

import numpy as np


def thin(points: Sequence[tuple[float, float]], limit: int) -> list[tuple[float, float | None]]:
    """Return at most `limit` of the points (x, y), in order. The y of a point that is not finite becomes None.

    The first and the last point, the extremes, and a point of each gap are kept. A gap is one or more points in a row that are
    not finite. If there are very many gaps, some are lost to keep within the limit.
    """
    y = np.array([value for _, value in points], np.float64)
    finite = np.isfinite(y)
    kept = np.arange(len(y)) if len(y) <= limit else _kept(y, finite, limit)
    return [(points[i][0], points[i][1] if finite[i] else None) for i in kept.tolist()]


def _kept(y: np.ndarray, finite: np.ndarray, limit: int) -> np.ndarray:
    """Return the indices of the kept points, int64 [at most `limit`], in ascending order."""
    # A gap may be kept between any two points, so half of the points are reserved for gaps if there are any.
    share = limit if finite.all() else limit // 2
    kept = {0, len(y) - 1}
    for bucket in np.array_split(np.flatnonzero(finite), max(1, (share - 2) // 4)):
        if len(bucket):
            values = y[bucket]
            kept |= {int(bucket[i]) for i in (0, -1, np.argmin(values), np.argmax(values))}
    indices = np.array(sorted(kept))
    gaps_before = np.cumsum(~finite)
    has_gap = np.flatnonzero(np.diff(gaps_before[indices]) > 0)
    starts = indices[has_gap] + 1
    not_finite = np.flatnonzero(~finite)
    gaps = not_finite[np.searchsorted(not_finite, starts)] if len(not_finite) else not_finite
    return np.union1d(indices, gaps)
