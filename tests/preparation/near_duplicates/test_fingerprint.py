"""Which pictures have a fingerprint."""

import numpy as np
from preparation import miniature
from preparation.near_duplicates.pictures import picture

from mixer_jax.preparation.near_duplicates.fingerprint import fingerprint_image


def test_an_image_of_next_to_nothing_has_no_fingerprint():
    ramp = np.tile(np.linspace(0, 255, 320).astype(np.uint8)[None, :, None], (240, 1, 3))
    halves = np.repeat((np.arange(240) < 100)[:, None, None], 320, axis=1).repeat(3, axis=2).astype(np.uint8) * 255
    for plain in (np.zeros((50, 50, 3), np.uint8), ramp, halves):
        assert fingerprint_image(plain) is None
        assert fingerprint_image(plain, min_detail=0) is not None
    assert fingerprint_image(picture(0)) is not None and fingerprint_image(miniature.pixels(0)) is not None
