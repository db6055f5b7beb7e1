import base64
import re

import cv2
import numpy as np
import pytest

from mixer_jax.report.pictures import MAX_STORED_SIDE, Picture, diverging, img, pairs_sheet, png_uri, sheet

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def decoded(html):
    data = re.search(r"data:image/png;base64,([\w+/=]+)", html)[1]
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)


def test_a_png_holds_the_very_pixels():
    np.testing.assert_array_equal(decoded(png_uri(IMAGE)), IMAGE)


@pytest.mark.parametrize("size, shown", [(8, 64), (28, 56), (32, 64), (48, 48), (64, 64), (224, 96)])
def test_small_images_are_shown_in_whole_multiples_and_large_ones_smaller(size, shown):
    html = img(np.zeros((size, size, 3), np.uint8), "")
    assert f'width="{shown}" height="{shown}"' in html
    assert decoded(html).shape[0] == min(size, MAX_STORED_SIDE)


def test_the_sheet_marks_exactly_the_wrong_predictions_and_names_both_classes():
    html = sheet([Picture(IMAGE, "cat"), Picture(IMAGE, "dog", "cow"), Picture(IMAGE, "hen")])
    figures = re.findall(r"<figure.*?</figure>", html)
    assert ["wrong" in figure for figure in figures] == [False, True, False]
    captions = [re.sub(r"<.*?>", " ", figure).split() for figure in figures]
    assert captions == [["cat"], ["\u2717", "cow", "is", "dog"], ["hen"]]


def test_class_names_are_escaped():
    html = sheet([Picture(IMAGE, '"<b>'), Picture(IMAGE, "<i>", "<u>")])
    assert not re.search(r"<[iu]>|\"<b>", html)


def test_weights_are_white_at_zero_red_above_blue_below_and_symmetric():
    red, white, blue = diverging(np.array([[2.0, 0.0, -2.0]]))[0].astype(int)
    assert white[0] == white[1] == white[2] > 240
    assert red[0] > red[2] + 100 and blue[2] > blue[0] + 100
    half_red, half_blue = diverging(np.array([[1.0, -1.0, 4.0]]))[0, :2].astype(int)
    np.testing.assert_allclose(half_red - white, (red - white) / 4, atol=1)
    np.testing.assert_allclose(half_blue - white, (blue - white) / 4, atol=1)


def test_a_unit_of_zeros_is_white():
    assert np.all(diverging(np.zeros((2, 2))) > 240)


def test_pairs_stay_together():
    unit = np.eye(4)
    spans = re.findall(r"<span>.*?</span>", pairs_sheet([(unit, -unit), (unit,)]))
    assert [span.count("<img") for span in spans] == [2, 1]
