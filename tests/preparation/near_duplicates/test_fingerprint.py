"""Which pictures have a fingerprint, and what it can differ in."""

import numpy as np
from preparation import miniature
from preparation.near_duplicates.pictures import picture

from mixer_jax.preparation.near_duplicates.fingerprint import fingerprint_image


def test_an_image_of_next_to_nothing_has_no_fingerprint():
    ramp = np.tile(np.linspace(0, 255, 320).astype(np.uint8)[None, :, None], (240, 1, 3))
    halves = np.repeat((np.arange(240) < 100)[:, None, None], 320, axis=1).repeat(3, axis=2).astype(np.uint8) * 255
    squares = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    for plain in (np.zeros((50, 50, 3), np.uint8), ramp, halves, squares):
        assert fingerprint_image(plain) is None
    assert fingerprint_image(picture(0)) is not None and fingerprint_image(miniature.pixels(0)) is not None


def test_no_two_fingerprints_differ_in_more_bits_than_are_counted():
    pictures = [picture(0), 255 - picture(0), picture(1)]
    assert all(fingerprint_image(each).bits.view(np.uint8)[0] & 128 for each in pictures)
