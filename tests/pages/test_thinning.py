import itertools
import math

import numpy as np
import pytest

from mixer_jax.pages.thinning import thin

RNG = np.random.default_rng(0)
CURVES = {
    "noise": RNG.normal(size=20_000),
    "one spike": np.where(np.arange(9_999) == 7_777, 1e9, 0.0),
    "constant": np.ones(5_000),
    "some gaps": np.where(RNG.random(20_000) < 0.001, math.nan, RNG.normal(size=20_000)),
    "gaps everywhere": np.where(np.arange(20_000) % 2 == 0, math.nan, RNG.normal(size=20_000)),
    "a gap at each end": np.concatenate([[math.nan] * 3_000, RNG.normal(size=4_000), [math.inf] * 3_000]),
    "nothing finite": np.full(5_000, math.nan),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("limit", [50, 2000])
def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_order_within_the_limit(name: str, limit: int):
    points = list(enumerate(CURVES[name].tolist()))
    kept = thin(points, limit)
    assert len(kept) <= limit and kept[0][0] == 0 and kept[-1][0] == len(points) - 1
    assert all(y == points[x][1] or (y is None and not math.isfinite(points[x][1])) for x, y in kept)
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    finite = [y for _, y in points if math.isfinite(y)]
    found = [y for _, y in kept if y is not None]
    assert (min(found, default=0), max(found, default=0)) == (min(finite, default=0), max(finite, default=0))


@pytest.mark.parametrize("name", CURVES)
def test_a_gap_between_two_points_that_are_kept_remains_a_gap(name: str):
    values = CURVES[name]
    kept = thin(list(enumerate(values.tolist())), 2000)
    for (x, y), (next_x, next_y) in itertools.pairwise(kept):
        assert y is None or next_y is None or np.isfinite(values[x:next_x]).all()


def test_a_short_curve_is_kept_whole_and_none_stands_for_what_is_not_finite():
    assert thin([(1, 2.0), (2, math.nan), (3, -math.inf)], 3) == [(1, 2.0), (2, None), (3, None)]
