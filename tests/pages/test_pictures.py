import base64

import cv2
import numpy as np
import pytest

from mixer_jax.pages.pictures import MAX_STORED_SIDE, diverging, filter_colors, image_uri, labeled, picture

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def decoded(uri):
    data = base64.b64decode(uri.partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_a_small_image_is_stored_exactly():
    np.testing.assert_array_equal(decoded(image_uri(IMAGE)), IMAGE)


def test_a_large_image_is_stored_nearly_and_small():
    ramp = np.broadcast_to(np.linspace(0, 255, 128)[:, None, None], (128, 128, 3)).astype(np.uint8)
    uri = image_uri(ramp)
    assert np.abs(decoded(uri).astype(int) - ramp).max() < 12 and len(uri) < 6000


@pytest.mark.parametrize("size, shown", [(8, 64), (28, 56), (32, 64), (48, 48), (64, 64), (224, 96)])
def test_small_images_are_shown_in_whole_multiples_and_large_ones_smaller(size, shown):
    shown_picture = picture(np.zeros((size, size, 3), np.uint8))
    assert (shown_picture.width, shown_picture.height, shown_picture.is_sharp) == (shown, shown, size <= shown)
    assert decoded(shown_picture.uri).shape[0] == min(size, MAX_STORED_SIDE)


@pytest.mark.parametrize("shape", [(1, 4000, 3), (4000, 1, 3)])
def test_a_very_narrow_image_has_a_pixel_at_least(shape):
    assert min(picture(np.zeros(shape, np.uint8))[1:3]) >= 1


def test_a_mistake_is_marked_and_names_both_classes():
    right, wrong = labeled(IMAGE, "cat"), labeled(IMAGE, "dog", "cow", "93 %")
    assert (right.is_wrong, right.caption) == (False, ("cat",))
    assert (wrong.is_wrong, wrong.caption) == (True, ("cow", "is dog", "93 %"))


def test_weights_are_white_at_zero_red_above_blue_below_and_symmetric():
    red, white, blue = diverging(np.array([[2.0, 0.0, -2.0]]))[0].astype(int)
    assert white[0] == white[1] == white[2] > 240
    assert red[0] > red[2] + 100 and blue[2] > blue[0] + 100
    half_red, half_blue = diverging(np.array([[1.0, -1.0, 4.0]]))[0, :2].astype(int)
    np.testing.assert_allclose(half_red - white, (red - white) / 4, atol=1)
    np.testing.assert_allclose(half_blue - white, (blue - white) / 4, atol=1)


def test_a_unit_of_zeros_is_white():
    assert np.all(diverging(np.zeros((2, 2))) > 240)


def test_a_filter_is_gray_at_zero_and_has_one_scale_for_all_colors():
    colors = filter_colors(np.array([[[2.0, 0.0, -2.0], [1.0, -1.0, 0.0]]]))
    np.testing.assert_array_equal(colors, [[[255, 128, 0], [191, 64, 128]]])
    assert np.all(filter_colors(np.zeros((2, 2, 3))) == 128)
