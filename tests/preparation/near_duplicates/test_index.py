"""The nearest of many references is found, and none that is too far."""

import numpy as np

from mixer_jax.preparation.near_duplicates.fingerprint import Fingerprint
from mixer_jax.preparation.near_duplicates.index import MAX_DISTANCE, Index


def test_the_nearest_of_many_is_found_up_to_the_greatest_distance():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, (500, 3, 4), np.uint64)
    areas = rng.permutation(256).astype(np.uint8)
    index = Index([], [Fingerprint(each, np.tile(areas, (3, 1))) for each in bits])
    for flipped in (0, 1, MAX_DISTANCE, MAX_DISTANCE + 1, 255):  # 255: a negative
        mask = np.packbits(np.arange(256) >= 256 - flipped).view(np.uint64)
        for areas_order, alike in ((areas, True), (areas[::-1], False)):
            match = index.nearest(Fingerprint(bits[321, 1] ^ mask, areas_order))
            assert match == (("near", flipped, 321) if flipped <= MAX_DISTANCE and alike else None)
