"""The pixels that each kind of file becomes, and the files that are refused."""

import base64
import hashlib
import io
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from data.tiff_and_bmp import EXTRA, ORIENTATION, bmp, tiff
from data.unreadable_images import (
    READ,
    UNREADABLE,
    file_of,
    gigantic_bmp,
    gigantic_chunk,
    gigantic_jpeg,
    gigantic_png,
    gigantic_tiff,
    gigantic_webp,
    opacity,
    picture,
    sixteen_bits,
    with_alpha,
)
from PIL import Image

from mixer_jax.data.images.decode import JPEG, MAX_SCANS, PNG, SCAN, UnreadableImageError, decode

Y, X = np.mgrid[:16, :24]
RAMP = np.stack([X * 10, Y * 15, np.full_like(X, 60)], -1).astype(np.uint8)
CAP = 2**20
WHOLE = [kind for kind in READ if re.search("WebP|BMP|TIFF", kind)]

PHOTOGRAPH = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQFxQYGBcUFhYaHSUfGhsjHBYWICwgIyYnKSopGR8tMC0oMCUoKSj/
2wBDAQcHBwoIChMKChMoGhYaKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCj/wAARCAAQABgDASIAAhEBAxEB/8QA
FgABAQEAAAAAAAAAAAAAAAAABwAD/8QAJRAAAgEEAgEDBQAAAAAAAAAAAQIDAAQFESExEgYHIkFhgaHh/8QAFgEBAQEAAAAAAAAAAAAAAAAABQEE/8QAIBEA
AgEEAQUAAAAAAAAAAAAAAQIAAwQFEUESExQhMf/aAAwDAQACEQMRAD8AGFwM2TuLWytZdzzyLGhfrnjZ+1IB9uMc8EmOt88z5NF3pogsbEAcEDkc/XZ76oyg
9RXOLzVnehQywyB1G+wDzv8AdM2BySZlZstg8XdT3J8gpIAjD63ot5f3rqseRrVkZeydDmXDW9s9JvM9txBpLdUQu4EMyEo8ez8SDrVVbXNrcT314k6ubsF3
kAQ7BG2Y/jkmqlFfQA+QLpUk7Jn/2Q==
"""  # scikit-learn's flower, at 24 x 16


def test_a_png_comes_out_as_the_pixels_that_went_in():
    decoded = decode(file_of(RAMP, "PNG"), CAP)
    np.testing.assert_array_equal(decoded, RAMP)
    assert decoded.dtype == np.uint8


def test_a_jpeg_comes_out_as_the_bits_that_tensorflow_reads():
    """The digest is of tf.io.decode_image(PHOTOGRAPH, channels=3, expand_animations=False) in TensorFlow 2.21.0 and 2.15.1."""
    decoded = decode(base64.b64decode(PHOTOGRAPH), CAP)
    assert decoded.shape == (16, 24, 3)
    assert hashlib.sha256(decoded.tobytes()).hexdigest() == "b1385defd0eff458e9b113f409669a75d5914d27d779d8138a70c26613cd52f5"


@pytest.mark.parametrize("kind", READ)
def test_every_kind_that_is_read_comes_out_as_the_rgb_that_pillow_reads(kind, capfd):
    data = READ[kind](picture(3))
    decoded = decode(data, CAP)
    if "16 bits" in kind:
        expected = picture(3)
    else:
        file = Image.open(io.BytesIO(data))
        opaque = file.convert("RGBA").convert("RGB") if file.has_transparency_data else file.convert("RGB")
        expected = np.asarray(opaque)
    assert (decoded.shape, decoded.dtype) == ((24, 32, 3), np.uint8)
    # The fast inverse DCT may differ by 8 levels. OpenCV and Pillow convert the YCbCr of a JPEG in a TIFF by different code.
    tolerance = 8 if data.startswith(JPEG) else 3 if "TIFF of a JPEG" in kind else 0
    assert np.abs(decoded.astype(int) - expected).max() <= tolerance
    np.testing.assert_array_equal(decode(data, CAP, strict=False), decoded)


@pytest.mark.parametrize("kind", [kind for kind in READ if not re.search("black|palette", kind)])  # Pillow dithers these.
def test_what_is_read_looks_like_what_went_in(kind, capfd):
    decoded, original = decode(READ[kind](picture(3)), CAP).astype(int), picture(3).astype(int)
    if "gray" in kind:
        assert np.all(decoded == decoded[..., :1])
        decoded, original = decoded.mean(-1), original @ [0.299, 0.587, 0.114]
    assert np.abs(decoded - original).mean() <= 15


@pytest.mark.parametrize("low_byte", [0, 127, 128, 255])
def test_of_sixteen_bits_the_high_byte_is_kept_as_tensorflow_keeps_it(low_byte):
    np.testing.assert_array_equal(decode(sixteen_bits(RAMP, low_byte), CAP), RAMP)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("low_byte", [0, 127, 128, 255])
def test_of_a_tiff_of_sixteen_bits_gray_keeps_the_high_byte_and_colors_are_rounded(low_byte, order):
    samples = RAMP.astype(np.uint16) * 256 + low_byte
    np.testing.assert_array_equal(decode(tiff(samples[..., :1], 1, order), CAP), RAMP[..., :1].repeat(3, -1))
    assert np.abs(decode(tiff(samples, 2, order), CAP).astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_a_tiff_is_neither_turned_nor_made_darker_by_its_opacity(orientation, extra):
    data = tiff(opacity(RAMP), 2, tags={ORIENTATION: [orientation], EXTRA: [extra]})
    np.testing.assert_array_equal(decode(data, CAP), RAMP)


@pytest.mark.parametrize("masks", [(), (0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)])
@pytest.mark.parametrize("top_down", [False, True])
def test_a_bmp_of_sixteen_bits_has_the_five_high_bits_of_each_color(masks, top_down):
    decoded = decode(bmp(RAMP, 16, masks, top_down=top_down), CAP)
    np.testing.assert_array_equal(decoded & 0xF8, RAMP & 0xF8)


def test_transparency_is_dropped_and_shows_the_colors_underneath():
    np.testing.assert_array_equal(decode(with_alpha(RAMP), CAP), RAMP)


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_bad_kind_is_refused_with_its_reason(kind, seed, capfd):
    make, _, reason = UNREADABLE[kind]
    with pytest.raises(UnreadableImageError, match=reason):
        decode(make(picture(seed)), CAP)


@pytest.mark.parametrize("kind", [kind for kind in UNREADABLE if "shows" not in kind])
def test_an_evaluation_takes_nothing_of_that_but_a_damaged_scan_that_libjpeg_only_warns_of(kind, capfd):
    with pytest.raises(UnreadableImageError):
        decode(UNREADABLE[kind][0](picture(0)), CAP, strict=False)
    damaged = UNREADABLE["JPEG with a flipped bit that shows"][0](picture(0))
    assert decode(damaged, CAP, strict=False).shape == (24, 32, 3)


@pytest.mark.parametrize("kind", [*WHOLE, "JPEG", "PNG"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_file_that_ends_too_soon_is_refused_wherever_it_ends(kind, strict, capfd):
    data = READ[kind](picture(0))
    for end in [*range(0, len(data) - 20, 11 if kind in WHOLE else 1), *range(len(data) - 20, len(data))]:
        with pytest.raises(UnreadableImageError):
            decode(data[:end], CAP, strict=strict)


def test_no_flipped_bit_of_a_png_changes_a_pixel(capfd):
    data = file_of(picture(0), "PNG")
    for bit in range(0, 8 * len(data), 5):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:  # Only a wrong checksum of the empty last chunk is accepted.
            np.testing.assert_array_equal(decode(bytes(flipped), CAP), picture(0))
        except UnreadableImageError:
            continue
        assert bit // 8 >= len(data) - 4


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "CMYK JPEG", "animated PNG", *WHOLE])
def test_whatever_is_flipped_or_cut_it_is_an_image_within_the_cap_or_refused(kind, capfd):
    rng, data = np.random.default_rng(0), READ[kind](picture(0))
    for trial in range(100 if kind in WHOLE else 2000):
        mutated = bytearray(data[: rng.integers(len(data))] if trial % 5 == 0 else data)
        for bit in rng.integers(8 * len(mutated), size=trial % 3 + 1) if mutated else ():
            mutated[bit // 8] ^= 1 << bit % 8
        try:
            decoded = decode(bytes(mutated), 2**12, strict=trial % 2 == 0)
        except UnreadableImageError:
            continue
        assert decoded.dtype == np.uint8 and decoded.shape[2:] == (3,) and decoded[..., 0].size <= 2**12


@pytest.mark.parametrize("file", [gigantic_png, gigantic_jpeg])
def test_the_cap_is_on_the_pixels_that_the_header_promises(file, capfd):
    with pytest.raises(UnreadableImageError, match=r"too large: 65 x 64 pixels, and config\.loader\.max_pixels is 4096"):
        decode(file(65, 64), 4096)
    assert decode(file(64, 64), 4096, strict=False).shape == (64, 64, 3)
    for size in ((0, 64), (64, 0), (0, 0)):
        with pytest.raises(UnreadableImageError):
            decode(file(*size), 4096)


def test_what_stands_before_the_frame_header_does_not_hide_it():
    data = file_of(picture(0), "JPEG")
    at = data.index(b"\xff\xdb")
    thumbnail = data[at : data.index(b"\xff\xda")]  # This is another frame header, as in EXIF data.
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail.replace(b"\x00\x18\x00\x20", b"\xff\xff\xff\xff")
    for between in (comment, b"\xff\xff\xff", comment * 3):
        assert decode(data[:at] + between + data[at:], 24 * 32).shape == (24, 32, 3)


def test_nothing_is_allocated_for_gigantic_promises(tmp_path):
    files = [gigantic_tiff(), gigantic_bmp(), gigantic_webp(), gigantic_tiff(65000, 65000), gigantic_bmp(2**31 - 1, 2**31 - 1)]
    files += [gigantic_png(), gigantic_jpeg(), gigantic_jpeg(65000, 65000), gigantic_png(2**31 - 1, 2**31 - 1), gigantic_chunk()]
    for i, data in enumerate(files):
        (tmp_path / str(i)).write_bytes(data)
    program = """
import resource, sys
from pathlib import Path
from mixer_jax.data.images.decode import UnreadableImageError, decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**26, size + 2**26))
for file in sys.argv[1:]:
    for strict in (True, False):
        try:
            decode(Path(file).read_bytes(), 2**26, strict=strict)
        except UnreadableImageError as error:
            print(error)
print("MiB", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    command = [sys.executable, "-c", program, *map(str, sorted(tmp_path.iterdir()))]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert len(re.findall("too large|ends too soon", output)) == 2 * len(files)
    assert int(re.search(r"MiB (\d+)", output)[1]) < 16


@pytest.mark.parametrize("data", [b"\xff", b"GIF89a......", b"no image at all", bytes(100), b"II+\x00", b"%!PS-Adobe", b"<svg/>"])
def test_another_format_is_refused_by_its_first_bytes(data):
    with pytest.raises(UnreadableImageError, match="none of JPEG, PNG, WebP, BMP, TIFF"):
        decode(data, CAP)


@pytest.mark.parametrize("start", [JPEG, PNG])
def test_a_right_beginning_followed_by_garbage_is_refused(start, capfd):
    with pytest.raises(UnreadableImageError, match="damaged"):
        decode(start + b"garbage" * 20, CAP)


def test_a_jpeg_of_very_many_scans_is_refused_before_they_are_decoded():
    """Decoding a scan touches the whole image, so hundreds of nearly empty scans would keep a decoder busy for long."""
    file = file_of(picture(0, 64, 64), "JPEG", progressive=True)
    assert file.count(SCAN) < MAX_SCANS / 3
    decode(file, 2**20)
    last = file.rindex(SCAN)
    with pytest.raises(UnreadableImageError, match="scans, each of which takes time; at most 50"):
        decode(file[:-2] + file[last:-2] * MAX_SCANS + file[-2:], 2**20)
