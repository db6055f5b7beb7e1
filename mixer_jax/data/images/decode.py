"""The bytes of an image file -> uint8 RGB pixels; [-1, 1] comes later, on the device.

What comes out of which file, and what TensorFlow's decode_image(channels=3, expand_animations=False) makes of the same, as
compared with 2.15.1 and 2.21.0 ("same": to the bit):

    JPEG    grey, YCbCr, RGB                 RGB; an EXIF rotation is ignored                             same
            CMYK, YCCK                       RGB = (255 - C)(255 - K) / 255, ...; no colour profile       same to one level
            truncated                        refused, and not filled up with grey                         same
            damaged so that libjpeg warns    refused in training, taken in evaluation (see `decode`)      takes it, see below
    PNG     grey, palette, 1 to 8 bits       RGB 8 bits                                                   same
            16 bits                          the high byte                                                same
            alpha, transparent colours       dropped: the colours underneath, not blended with any        same
            animated                         the animation's first frame                                  see below
            truncated, any flipped bit       refused: its checksums tell                                  same
    WebP    lossy, lossless                  RGB; an EXIF rotation is ignored                             reads none
            alpha                            dropped: the colors underneath
            animated                         refused
    BMP     palette, RLE, 16, 24, 32 bits    RGB; top-down files too; 32 bits: the fourth byte dropped    not compared
            colors in unusual places         refused: OpenCV would take them for others
    TIFF    grey, palette, RGB, CMYK; YCbCr  RGB of the first page; EXIF and TIFF rotations are ignored   reads none
            as JPEG; strips, planes
            16 bits                          grey: the high byte; RGB: the nearest of 256 levels
            alpha, other extra samples       dropped: the colors as they are stored
            floats, signed, Lab, 2, 4, 12    refused, as are BigTIFF, CMYK and palettes of 16 bits, and
            or 32 bits                       compressions other than LZW, deflate, PackBits, JPEG, fax
    these   truncated                        refused
    three   flipped bits                     found in deflated TIFF alone: the others have no checksum
    other   GIF (animated or not), empty     refused by the first bytes                                   takes GIF
    any     more than max_pixels, or sides   refused from the header, before anything is allocated        no such bound
            beyond 1 : MAX_ASPECT

TensorFlow decodes JPEGs with libjpeg's fast inverse DCT, and so do we: the exact one gives two bytes of three another value, by
up to 8 levels. OpenCV, which reads the damaged ones, has only the exact one. TensorFlow knows no animated PNG and takes its
default image, nearly always the first frame. A JPEG has no checksum: three of four flipped bits in the scan of a small one leave
a stream that any decoder takes without a word, and then so does this one. Headers of other files: headers.py.
"""

import re
import struct
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import simplejpeg

from mixer_jax.data.images.headers import ENDS_TOO_SOON, PNG, Size, bmp_size, png_size, tiff_as_stored, tiff_size, webp_size
from mixer_jax.errors import UserError

JPEG = b"\xff\xd8"
PROGRESSIVE, SCAN = (0xC2, 0xC6, 0xCA, 0xCE), b"\xff\xda"  # markers
MAX_SCANS = 50  # of a progressive JPEG; usual are 10. Each goes over all of the image, however few bytes it has
MAX_ASPECT = 1000  # a strip of few pixels is gigantic once its shorter side is resized to 256, as in evaluation

# What libjpeg warns of although every pixel is sound, as in many files: stray bytes before the headers (markers APPn,
# COM, DQT, SOF, DRI), one or two before the end, a wrong version; and what simplejpeg cannot read but OpenCV can.
HARMLESS = re.compile(
    r"extraneous bytes before marker 0x(e.|fe|db|c[012]|dd)|: [12] extraneous bytes before marker 0xd9"
    r"|unknown JFIF revision|not determine subsampling"
)

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong with an image, UnreadableImageError says

FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes, int], Size]]] = {  # beside JPEG: first bytes, size
    "PNG": (re.compile(re.escape(PNG)), lambda data, _: png_size(data)),
    "WebP": (re.compile(rb"RIFF....WEBP", re.DOTALL), lambda data, _: webp_size(data)),
    "BMP": (re.compile(rb"BM"), lambda data, _: bmp_size(data)),
    "TIFF": (re.compile(rb"II\*\0|MM\0\*"), tiff_size),
}


class UnreadableImageError(UserError):
    """An image that cannot be read, or must not be. The message goes on after "FILE is"."""


class UnavailableImageError(UnreadableImageError):
    """An image that the disk does not give, which it may give later."""


def decode(data: bytes, max_pixels: int, *, strict: bool = True) -> np.ndarray:
    """Decode an image file's bytes to uint8 [h, w, 3], or raise UnreadableImageError: the table above.

    With `strict`, as in training, a JPEG is refused when its scan is damaged in a way that libjpeg only warns of: what it then
    shows is shifted or wrong colours. Without, as in evaluation, it is taken: the paper's figures are over all images, as
    TensorFlow reads them.
    """
    if data.startswith(JPEG):
        jpeg_frame(data, max_pixels)
        try:
            return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=True, strict=True)
        except ValueError as error:
            if strict and not HARMLESS.search(str(error)):
                raise UnreadableImageError(f"a damaged JPEG ({error})") from error
            return _opencv_decode(data, "JPEG")
    for kind, (pattern, read_size) in FORMATS.items():
        if not pattern.match(data):
            continue
        try:
            size = read_size(data, max_pixels)
        except NotImplementedError as error:
            raise UnreadableImageError(f"a {kind} of a form that is not read ({error})") from error
        except (ValueError, struct.error) as error:  # the latter for a header that is not all there
            reason = ENDS_TOO_SOON if isinstance(error, struct.error) else error
            raise UnreadableImageError(f"a damaged {kind} ({reason})") from error
        _check_size(*size, max_pixels)
        return _opencv_decode(tiff_as_stored(data) if kind == "TIFF" else data, kind)
    known = f"none of {', '.join(['JPEG', *FORMATS])}"
    raise UnreadableImageError(f"{known} (its first bytes are {data[:4]!r})" if data else "empty")


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise UnreadableImageError(f"too large: {height} x {width} pixels, and config.loader.max_pixels is {max_pixels}")
    if max(height, width) > MAX_ASPECT * min(height, width):  # a side of 0 too
        raise UnreadableImageError(f"too thin: {height} x {width} pixels")


def jpeg_frame(data: bytes, max_pixels: int) -> tuple[int, int, int]:
    """Return (height, width, offset of the frame header that says so). Raises UnreadableImageError for more than `max_pixels`."""
    for marker, at in jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOF0 to SOF15 but for DHT, JPG, DAC
            height, width = struct.unpack_from(">HH", data, at + 5)
            _check_size(height, width, max_pixels)
            if marker in PROGRESSIVE and data.count(SCAN) > MAX_SCANS:
                raise UnreadableImageError(f"a JPEG of {data.count(SCAN)} scans, each of which takes time; at most {MAX_SCANS}")
            return height, width, at
    raise UnreadableImageError("a damaged JPEG (no header)")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, offset) of all up to the first scan, on the way to it that libjpeg takes: stray bytes are passed over."""
    at = data.find(b"\xff", 2)
    while 0 <= at <= len(data) - 9:
        marker, length = struct.unpack_from(">xBH", data, at)
        yield marker, at
        if marker in (0xD9, 0xDA):  # the end, or a scan
            break
        has_segment = marker not in (0x00, 0x01, 0xD8, 0xFF) and not 0xD0 <= marker <= 0xD7
        at = data.find(b"\xff", at + 2 + length if has_segment else at + 1)


def _opencv_decode(data: bytes, kind: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # a size beyond OpenCV's own bound
        raise UnreadableImageError(f"a {kind} that OpenCV refuses ({error.err})") from error
    if image is None:
        raise UnreadableImageError(
            f"a damaged {kind}" + (", or one that OpenCV does not read" if kind in ("BMP", "TIFF") else "")
        )
    return image
