"""JPEGs that are decoded down to a row have the same bits as the whole image. Only files known to be sound are decoded so."""

import cv2
import numpy as np
import pytest
import simplejpeg
from sklearn.datasets import load_sample_images

from mixer_jax.config import default_config
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.images.decode import UnreadableImageError, decode
from mixer_jax.data.images.partial_jpeg import PartialJpeg, supports_partial_decoding

PHOTOGRAPHS = load_sample_images().images
SAMPLINGS = ("444", "422", "420", "440", "411", "Gray")


def encoded(height: int, width: int, sampling: str = "420", quality: int = 92, which: int = 0) -> bytes:
    image = np.ascontiguousarray(PHOTOGRAPHS[which][100 : 100 + height, 200 : 200 + width])
    if sampling == "Gray":
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        return simplejpeg.encode_jpeg(gray, quality=quality, colorspace="GRAY", colorsubsampling="Gray")
    return simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling=sampling)


def opencv_encoded(*options: int) -> bytes:
    return cv2.imencode(".jpg", PHOTOGRAPHS[0], options)[1].tobytes()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48), (131, 99)])
def test_any_part_is_to_the_bit_that_of_the_whole_image(sampling, size):
    data = encoded(*size, sampling)
    assert supports_partial_decoding(data)
    whole, rows = decode(data, 2**20), PartialJpeg(data, 2**20)
    assert rows.shape == whole.shape
    np.testing.assert_array_equal(rows[:, :], whole)
    for stop in range(1, size[0] + 1):
        top, left = stop // 3, size[1] // 4
        np.testing.assert_array_equal(rows[top:stop, left:], whole[top:stop, left:])


def test_restart_markers_are_borne():
    data = opencv_encoded(cv2.IMWRITE_JPEG_RST_INTERVAL, 4)
    assert b"\xff\xd1" in data and supports_partial_decoding(data)
    whole = decode(data, 2**20)
    for stop in (1, 40, 200, 426):
        np.testing.assert_array_equal(PartialJpeg(data, 2**20)[:stop, :], whole[:stop])


@pytest.mark.parametrize("crop", ["inception", "random", "resize"])
def test_every_training_crop_is_the_same_of_rows_and_of_pixels(crop):
    config, data = default_config().augment, encoded(300, 400)
    config.crop = crop
    transform = train_transform(config, 32)
    for seed in range(20):
        views = [transform(image, np.random.default_rng(seed)) for image in (PartialJpeg(data, 2**20), decode(data, 2**20))]
        np.testing.assert_array_equal(*views)


def test_a_file_that_is_damaged_progressive_or_no_jpeg_is_decoded_whole():
    sound = encoded(64, 64)
    bad = bytearray(sound)
    bad[len(bad) // 2 : len(bad) // 2 + 40] = bytes(40)
    others = {
        "damaged": bytes(bad),
        "truncated": sound[:-100],
        "progressive": opencv_encoded(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "png": cv2.imencode(".png", PHOTOGRAPHS[0])[1].tobytes(),
        "no headers": sound[:20],
        "empty": b"",
    }
    assert supports_partial_decoding(sound)
    assert [name for name, data in others.items() if supports_partial_decoding(data)] == []


def test_a_header_with_too_many_pixels_is_refused_before_anything_is_decoded():
    with pytest.raises(UnreadableImageError, match=r"64 x 64 pixels, and config.loader.max_pixels is 4095"):
        PartialJpeg(encoded(64, 64), 4095)


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_not_taken_whatever_a_shard_says_of_it(kept):
    data = encoded(131, 99)
    with pytest.raises(UnreadableImageError, match="it ends too soon"):
        PartialJpeg(data[: int(len(data) * kept)], 2**20)
    np.testing.assert_array_equal(PartialJpeg(data + b"stray bytes", 2**20)[:, :], decode(data, 2**20))
