"""The geometry of resizing and of the central crop."""

import numpy as np
import pytest

from mixer_jax.data.images.resize import central_crop, resize, resize_small

Y, X = np.mgrid[:16, :24]
RAMP = np.stack([X * 10, Y * 15, np.full_like(X, 60)], -1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(4, 4), (8, 12), (32, 48), (16, 24), (4, 24), (1, 1)])
def test_a_resized_image_has_the_asked_size_and_the_mean_it_had(shape):
    resized = resize(RAMP, *shape)
    assert (resized.shape, resized.dtype) == ((*shape, 3), np.uint8)
    np.testing.assert_allclose(resized.mean((0, 1)), RAMP.mean((0, 1)), atol=1.5)


def test_resizing_by_the_shorter_side_takes_the_mean_of_what_each_pixel_covers():
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    blocks = noise.reshape(4, 4, 6, 4, 3).mean((1, 3))
    np.testing.assert_allclose(resize_small(noise, 4), blocks, atol=0.51)


def test_resizing_both_sides_sees_the_four_nearest_pixels_alone():
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    nearest = noise.reshape(4, 4, 6, 4, 3)[:, 1:3, :, 1:3].mean((1, 3))  # the middle of each 4 x 4
    np.testing.assert_allclose(resize(noise, 4, 6), nearest, atol=1)


def test_a_larger_image_is_linear_between_pixels():
    wide = resize(np.array([[[0] * 3, [80] * 3]], np.uint8), 1, 8)[0, :, 0]
    np.testing.assert_allclose(wide, [0, 0, 10, 30, 50, 70, 80, 80], atol=1)


def test_an_image_of_the_right_size_stays_as_it_is():
    np.testing.assert_array_equal(resize(RAMP, 16, 24), RAMP)
    np.testing.assert_array_equal(resize_small(RAMP, 16), RAMP)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (16, 24, 8, (8, 12)), (24, 16, 8, (12, 8)), (16, 16, 8, (8, 8)), (8, 8, 20, (20, 20)), (300, 299, 256, (257, 256)),
        (500, 333, 256, (384, 256)), (7, 700, 5, (5, 500)), (1000, 3, 4, (1333, 4)),
    ],
)  # fmt: skip
def test_resizing_by_the_shorter_side_keeps_the_aspect(height, width, size, expected):
    assert resize_small(np.zeros((height, width, 3), np.uint8), size).shape == (*expected, 3)


@pytest.mark.parametrize(("size", "top", "left"), [(16, 0, 4), (8, 4, 8), (15, 0, 4), (1, 7, 11)])
def test_the_central_crop_is_in_the_center(size, top, left):
    np.testing.assert_array_equal(central_crop(RAMP, size), RAMP[top : top + size, left : left + size])
