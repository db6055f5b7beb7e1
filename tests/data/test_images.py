"""Files to pixels, and the geometry of resizing and cropping."""

import io

import cv2
import numpy as np
import pytest

from mixer_jax.config import UserError
from mixer_jax.data import images

Y, X = np.mgrid[:16, :24]
RAMP = np.stack([X * 10, Y * 15, np.full_like(X, 60)], -1).astype(np.uint8)


def encode(image: np.ndarray, suffix: str) -> bytes:
    """RGB or grey pixels -> a file's bytes."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    return cv2.imencode(suffix, bgr)[1].tobytes()


def pillow_file(image: np.ndarray, mode: str, kind: str, **options) -> bytes:
    """As `encode`, in formats that OpenCV does not write."""
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.fromarray(image).convert(mode).save(file, kind, **options)
    return file.getvalue()


def test_a_png_comes_out_as_the_pixels_that_went_in():
    decoded = images.decode(encode(RAMP, ".png"))
    np.testing.assert_array_equal(decoded, RAMP)
    assert decoded.dtype == np.uint8


def test_a_jpeg_comes_out_nearly_so_with_its_colours_in_their_order():
    decoded = images.decode(encode(RAMP, ".jpg"))
    assert decoded.shape == RAMP.shape
    assert np.abs(decoded.astype(int) - RAMP).mean() < 8


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_grey_comes_out_as_three_equal_channels(suffix):
    decoded = images.decode(encode(RAMP[..., 1], suffix))
    assert decoded.shape == RAMP.shape
    assert np.all(decoded == decoded[..., :1])
    assert np.abs(decoded[..., 0].astype(int) - RAMP[..., 1]).mean() < 3


@pytest.mark.parametrize(
    ("mode", "kind", "tolerance"),
    [("RGBA", "PNG", 0), ("P", "PNG", 40), ("CMYK", "JPEG", 12), ("L", "PNG", 256), ("1", "PNG", 256)],
)
def test_every_kind_of_colour_comes_out_as_rgb(mode, kind, tolerance):
    decoded = images.decode(pillow_file(RAMP, mode, kind))
    assert (decoded.shape, decoded.dtype) == (RAMP.shape, np.uint8)
    assert np.abs(decoded.astype(int) - RAMP).mean() <= tolerance


def test_sixteen_bits_a_channel_come_out_as_eight():
    np.testing.assert_array_equal(images.decode(encode(RAMP.astype(np.uint16) * 257, ".png")), RAMP)


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG")])
def test_a_rotation_asked_for_by_the_camera_is_ignored(mode, kind):
    pillow = pytest.importorskip("PIL.Image")
    exif = pillow.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    assert images.decode(pillow_file(RAMP, mode, kind, exif=exif)).shape == (16, 24, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_file_that_ends_too_soon_is_refused(suffix, kept, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(noise, suffix)
    with pytest.raises(UserError, match="damaged"):
        images.decode(data[: int(kept * len(data))])


@pytest.mark.parametrize("data", [b"", b"\xff", b"GIF89a......", b"no image at all", bytes(100)])
def test_another_format_is_refused_by_its_first_bytes(data):
    with pytest.raises(UserError, match="neither JPEG nor PNG"):
        images.decode(data)


@pytest.mark.parametrize("start", [images.JPEG, images.PNG])
def test_a_right_beginning_followed_by_garbage_is_refused(start, capfd):
    with pytest.raises(UserError, match="damaged"):
        images.decode(start + b"garbage" * 20)


@pytest.mark.parametrize("shape", [(4, 4), (8, 12), (32, 48), (16, 24), (4, 24), (1, 1)])
def test_a_resized_image_has_the_asked_size_and_the_mean_it_had(shape):
    resized = images.resize(RAMP, *shape)
    assert (resized.shape, resized.dtype) == ((*shape, 3), np.uint8)
    np.testing.assert_allclose(resized.mean((0, 1)), RAMP.mean((0, 1)), atol=1.5)


def test_resizing_by_the_shorter_side_takes_the_mean_of_what_each_pixel_covers():
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    blocks = noise.reshape(4, 4, 6, 4, 3).mean((1, 3))
    np.testing.assert_allclose(images.resize_small(noise, 4), blocks, atol=0.51)


def test_resizing_both_sides_sees_the_four_nearest_pixels_alone():
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    nearest = noise.reshape(4, 4, 6, 4, 3)[:, 1:3, :, 1:3].mean((1, 3))  # the middle of each 4 x 4
    np.testing.assert_allclose(images.resize(noise, 4, 6), nearest, atol=1)


def test_a_larger_image_is_linear_between_pixels():
    wide = images.resize(np.array([[[0] * 3, [80] * 3]], np.uint8), 1, 8)[0, :, 0]
    np.testing.assert_allclose(wide, [0, 0, 10, 30, 50, 70, 80, 80], atol=1)


def test_an_image_of_the_right_size_stays_as_it_is():
    np.testing.assert_array_equal(images.resize(RAMP, 16, 24), RAMP)
    np.testing.assert_array_equal(images.resize_small(RAMP, 16), RAMP)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (16, 24, 8, (8, 12)), (24, 16, 8, (12, 8)), (16, 16, 8, (8, 8)), (8, 8, 20, (20, 20)), (300, 299, 256, (257, 256)),
        (500, 333, 256, (384, 256)), (7, 700, 5, (5, 500)), (1000, 3, 4, (1333, 4)),
    ],
)  # fmt: skip
def test_resizing_by_the_shorter_side_keeps_the_aspect(height, width, size, expected):
    assert images.resize_small(np.zeros((height, width, 3), np.uint8), size).shape == (*expected, 3)


@pytest.mark.parametrize(("size", "top", "left"), [(16, 0, 4), (8, 4, 8), (15, 0, 4), (1, 7, 11)])
def test_the_central_crop_is_in_the_centre(size, top, left):
    np.testing.assert_array_equal(images.central_crop(RAMP, size), RAMP[top : top + size, left : left + size])


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("progressive", [0, 1])
def test_the_size_of_a_jpeg_is_read_from_its_header(subsampling, progressive):
    image = np.zeros((37, 53, 3), np.uint8)
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{subsampling}")
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    assert images.dimensions(cv2.imencode(".jpg", image, options)[1].tobytes()) == (37, 53)


def test_stray_bytes_between_the_parts_of_a_jpeg_are_skipped():
    data = encode(RAMP, ".jpg")
    place = data.index(b"\xff\xdb")
    stray = data[:place] + b"stray" + data[place:]
    assert images.dimensions(stray) == RAMP.shape[:2] == images.decode(stray).shape[:2]


def test_the_size_of_a_png_is_read_from_its_header():
    assert images.dimensions(cv2.imencode(".png", np.zeros((37, 53, 3), np.uint8))[1].tobytes()) == (37, 53)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8" + b"\xff" * 99, b"\xff\xd8" + bytes(99), b"\x89PNG"]
)
def test_what_has_no_size_is_refused(data):
    with pytest.raises(UserError, match=r"damaged JPEG|neither"):
        images.dimensions(data)
