"""Decoding: from the bytes of an image file to uint8 RGB pixels. They become numbers in [-1, 1] later, on the device.

The table shows what each kind of file becomes. The last column compares with decode_image(channels=3, expand_animations=False) of
TensorFlow 2.15.1 and 2.21.0; "same" means identical, bit for bit.

    JPEG    gray, YCbCr, RGB                 RGB; an EXIF rotation is ignored                             same
            CMYK, YCCK                       RGB = (255 - C)(255 - K) / 255, ...; no color profile        same within one level
            truncated                        refused; the missing part is not filled with gray            same
            damaged so that libjpeg warns    refused in training, decoded in evaluation (see `decode`)    decoded, see below
    PNG     gray, palette, 1 to 8 bits       RGB of 8 bits                                                same
            16 bits                          the high byte                                                same
            alpha, transparent colors        opacity is dropped: the stored colors, blended with nothing  same
            animated                         the animation's first frame                                  see below
            truncated, any flipped bit       refused: the checksums show it                               same
    WebP    lossy, lossless                  RGB; an EXIF rotation is ignored                             not supported
            alpha                            opacity is dropped: the stored colors
            animated                         refused
    BMP     palette, RLE, 16, 24, 32 bits    RGB; also top-down files; of 32 bits, the fourth byte is     not compared
                                             dropped
            unusual color masks              refused: OpenCV would confuse the colors
    TIFF    gray, palette, RGB, CMYK; YCbCr  RGB of the first page; EXIF and TIFF rotations are ignored   not supported
            as JPEG; strips, planes
            16 bits                          gray: the high byte; RGB: the nearest of 256 levels
            alpha, other extra samples       dropped: the colors as they are stored
            floats, signed, Lab, 2, 4, 12    refused, as are BigTIFF, CMYK and palettes of 16 bits, and
            or 32 bits                       compressions other than LZW, deflate, PackBits, JPEG, fax
    WebP,   truncated                        refused
    BMP,    flipped bits                     noticed only in a deflated TIFF: the other forms have no
    TIFF                                     checksum
    other   GIF (animated or not), empty     refused because of the first bytes                           GIF is decoded
    any     more than max_pixels, or sides   refused because of the header, before memory is allocated    no such limit
            beyond 1 : MAX_ASPECT

TensorFlow decodes JPEGs with libjpeg's fast inverse DCT, and so do we. The exact inverse DCT changes two of three bytes, by up to
8 levels. JPEGs that libjpeg warns of are decoded by OpenCV, which has only the exact one. TensorFlow does not know animated PNGs:
it decodes their default image, which is nearly always the first frame. A JPEG has no checksum. Three of four flipped bits in the
scan of a small JPEG leave a stream that every decoder accepts without a warning, and this one accepts it too. The headers of the
other formats are read in headers.py.
"""

import math
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
# The limit for a progressive JPEG, which usually has 10 scans. Decoding a scan touches the whole image, however few bytes it has.
MAX_SCANS = 50
MAX_ASPECT = 1000  # A thin image of few pixels becomes gigantic when evaluation resizes its shorter side to 256.

# The warnings of libjpeg after which every pixel is still right. Many files cause them: stray bytes before the headers (markers
# APPn, COM, DQT, SOF, DRI), one or two stray bytes before the end, or a wrong JFIF version. The last alternative is an error of
# simplejpeg about files that OpenCV can decode.
HARMLESS = re.compile(
    r"extraneous bytes before marker 0x(e.|fe|db|c[012]|dd)|: [12] extraneous bytes before marker 0xd9"
    r"|unknown JFIF revision|not determine subsampling"
)

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # UnreadableImageError says what is wrong with an image.

# The formats other than JPEG: the pattern of the first bytes, and the function that returns the size.
FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes, int], Size]]] = {
    "PNG": (re.compile(re.escape(PNG)), lambda data, _: png_size(data)),
    "WebP": (re.compile(rb"RIFF....WEBP", re.DOTALL), lambda data, _: webp_size(data)),
    "BMP": (re.compile(rb"BM"), lambda data, _: bmp_size(data)),
    "TIFF": (re.compile(rb"II\*\0|MM\0\*"), tiff_size),
}


class UnreadableImageError(UserError):
    """An image that cannot be decoded, or must not be. The message continues a sentence that begins with "FILE is"."""


class UnavailableImageError(UnreadableImageError):
    """An image that the disk fails to deliver now and may deliver later."""


def decode(data: bytes, max_pixels: int, *, strict: bool = True) -> np.ndarray:
    """Decode the bytes of an image file to uint8 [h, w, 3], as the table at the top of this file says.

    Args:
      data: the bytes of the file.
      max_pixels: the largest number of pixels that is decoded.
      strict: whether to refuse a JPEG whose damage libjpeg only warns of. Such an image shows shifted pixels or wrong colors.
        Training is strict. Evaluation is not, because the paper's figures are over all images as TensorFlow decodes them.

    Raises:
      UnreadableImageError: the file is damaged, too large, too thin, or of a form that is not supported.
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
        except (ValueError, struct.error) as error:  # An incomplete header raises struct.error.
            reason = ENDS_TOO_SOON if isinstance(error, struct.error) else error
            raise UnreadableImageError(f"a damaged {kind} ({reason})") from error
        check_size(*size, max_pixels)
        return _opencv_decode(tiff_as_stored(data) if kind == "TIFF" else data, kind)
    known = f"none of {', '.join(['JPEG', *FORMATS])}"
    raise UnreadableImageError(f"{known} (its first bytes are {data[:4]!r})" if data else "empty")


def check_size(height: int, width: int, max_pixels: float = math.inf) -> None:
    """Raise UnreadableImageError for an image that is too large or too thin."""
    if height * width > max_pixels:
        raise UnreadableImageError(f"too large: {height} x {width} pixels, and config.loader.max_pixels is {max_pixels}")
    if max(height, width) > MAX_ASPECT * min(height, width):  # This refuses 0 x N pixels, too.
        raise UnreadableImageError(f"too thin: {height} x {width} pixels")


def jpeg_frame(data: bytes, max_pixels: int) -> tuple[int, int, int]:
    """Return (height, width, offset of the frame header that states them) of a JPEG file.

    Raises UnreadableImageError for more than `max_pixels` pixels, an extreme aspect, too many scans, or a missing header.
    """
    for marker, offset in jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOF0 to SOF15; the other three are DHT, JPG and DAC
            height, width = struct.unpack_from(">HH", data, offset + 5)
            check_size(height, width, max_pixels)
            if marker in PROGRESSIVE and data.count(SCAN) > MAX_SCANS:
                raise UnreadableImageError(f"a JPEG of {data.count(SCAN)} scans, each of which takes time; at most {MAX_SCANS}")
            return height, width, offset
    raise UnreadableImageError("a damaged JPEG (no header)")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, offset) of each segment of a JPEG file, up to and including the first scan.

    Stray bytes between segments are skipped as libjpeg skips them.
    """
    offset = data.find(b"\xff", 2)
    while 0 <= offset <= len(data) - 9:
        marker, length = struct.unpack_from(">xBH", data, offset)
        yield marker, offset
        if marker in (0xD9, 0xDA):  # the end of the image, or a scan
            break
        has_length = marker not in (0x00, 0x01, 0xD8, 0xFF) and not 0xD0 <= marker <= 0xD7
        offset = data.find(b"\xff", offset + 2 + length if has_length else offset + 1)


def _opencv_decode(data: bytes, kind: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # OpenCV has a size limit of its own.
        raise UnreadableImageError(f"a {kind} that OpenCV refuses ({error.err})") from error
    if image is None:
        raise UnreadableImageError(
            f"a damaged {kind}" + (", or one that OpenCV does not read" if kind in ("BMP", "TIFF") else "")
        )
    return image
