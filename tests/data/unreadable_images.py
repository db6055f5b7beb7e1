"""A corpus of 1000 small images of all kinds that can be read, with 52 that cannot. It is made in a moment."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from data.tiff_and_bmp import (
    BITS,
    COMPRESSION,
    EXTRA,
    FORMAT,
    HEIGHT,
    PHOTOMETRIC,
    SAMPLES,
    WIDTH,
    bmp,
    bmp_with_runs,
    tiff,
    with_directory,
)
from PIL import Image

from mixer_jax.data.images.decode import HARMLESS


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Return an image with smooth colors, uint8 [h, w, 3]. A JPEG of it is similar."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def file_of(image: np.ndarray, kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, kind, **options)
    return file.getvalue()


def rotated(image: np.ndarray, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """Return a file whose EXIF data rotate it by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(image, kind, mode, exif=exif)


def sixteen_bits(image: np.ndarray, low_byte: int = 77) -> bytes:
    return cv2.imencode(".png", image[..., ::-1].astype(np.uint16) * 256 + low_byte)[1].tobytes()


def with_alpha(image: np.ndarray) -> bytes:
    alpha = np.random.default_rng(0).integers(0, 256, (*image.shape[:2], 1), np.uint8)
    return cv2.imencode(".png", np.concatenate([image[..., ::-1], alpha], -1))[1].tobytes()


def opacity(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image, np.random.default_rng(0).integers(0, 256, (*image.shape[:2], 1), np.uint8)], -1)


def gigantic_tiff(height: int = 30000, width: int = 30000) -> bytes:
    """Return a TIFF with one strip of compressed zeros. Its tags are valid."""
    strip = zlib.compress(bytes(10**6))
    entries = {WIDTH: [width], HEIGHT: [height], BITS: [8], COMPRESSION: [8], PHOTOMETRIC: [1], SAMPLES: [1]}
    return with_directory("<", [strip], entries)


def gigantic_bmp(height: int = 30000, width: int = 30000) -> bytes:
    """Return a BMP with run-length encoding, in which few bytes could be so many pixels."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54 + 1024) + head + bytes(1024) + b"\0\1"


def gigantic_webp(height: int = 16000, width: int = 16000) -> bytes:
    content = b"WEBPVP8L" + struct.pack("<IBI", 10, 0x2F, (height - 1) << 14 | (width - 1)) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def animated(image: np.ndarray, kind: str = "PNG") -> bytes:
    others = [Image.fromarray(np.roll(image, i, 1)) for i in (3, 6)]
    return file_of(image, kind, save_all=True, append_images=others, duration=100)


def stray_bytes(image: np.ndarray) -> bytes:
    """Return a JPEG with three stray bytes before its first table. libjpeg warns of them, and the pixels are right."""
    data = file_of(image, "JPEG")
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\x00\x00\x13" + data[at:]


READ = {
    "JPEG": lambda image: file_of(image, "JPEG", quality=90),
    "progressive JPEG": lambda image: file_of(image, "JPEG", progressive=True),
    "JPEG of RGB": lambda image: file_of(image, "JPEG", keep_rgb=True),
    "gray JPEG": lambda image: file_of(image, "JPEG", "L"),
    "CMYK JPEG": lambda image: file_of(image, "JPEG", "CMYK"),
    "rotated JPEG": rotated,
    "rotated CMYK JPEG": lambda image: rotated(image, mode="CMYK"),
    "JPEG with stray bytes before its tables": stray_bytes,
    "JPEG with bytes after its end": lambda image: file_of(image, "JPEG") + b"more",
    "PNG": lambda image: file_of(image, "PNG"),
    "gray PNG": lambda image: file_of(image, "PNG", "L"),
    "black and white PNG": lambda image: file_of(image, "PNG", "1"),
    "palette PNG": lambda image: file_of(image, "PNG", "P"),
    "palette PNG with a transparent color": lambda image: file_of(image, "PNG", "P", transparency=3),
    "PNG of 16 bits": sixteen_bits,
    "PNG with alpha": with_alpha,
    "gray PNG with alpha": lambda image: file_of(image, "PNG", "LA"),
    "rotated PNG": lambda image: rotated(image, "PNG"),
    "animated PNG": animated,
    "lossy WebP": lambda image: file_of(image, "WEBP", quality=95),
    "lossless WebP": lambda image: file_of(image, "WEBP", lossless=True),
    "WebP with alpha": lambda image: file_of(opacity(image), "WEBP", "RGBA", lossless=True, exact=True),
    "lossy WebP with alpha": lambda image: file_of(opacity(image), "WEBP", "RGBA", exact=True, quality=95),
    "rotated WebP": lambda image: rotated(image, "WEBP"),
    "BMP": lambda image: file_of(image, "BMP"),
    "gray BMP": lambda image: file_of(image, "BMP", "L"),
    "palette BMP": lambda image: file_of(image, "BMP", "P"),
    "black and white BMP": lambda image: file_of(image, "BMP", "1"),
    "gray BMP with runs": lambda image: bmp_with_runs(np.asarray(Image.fromarray(image).convert("L"))),
    "BMP from the top down": lambda image: bmp(image, 24, top_down=True),
    "BMP of 32 bits": lambda image: bmp(image, 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), header=108),
    "BMP of OS/2": lambda image: bmp(image, 24, header=12),
    "TIFF": lambda image: file_of(image, "TIFF"),
    "TIFF of Motorola's order in strips": lambda image: tiff(image, 2, ">", rows=5),
    "deflated TIFF": lambda image: file_of(image, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF with LZW": lambda image: file_of(image, "TIFF", compression="tiff_lzw"),
    "TIFF with PackBits": lambda image: file_of(image, "TIFF", compression="packbits"),
    "TIFF of a JPEG": lambda image: file_of(image, "TIFF", compression="jpeg", quality=95),
    "TIFF of a JPEG's YCbCr": lambda image: file_of(image, "TIFF", "YCbCr", compression="jpeg", quality=95),
    "gray TIFF": lambda image: file_of(image, "TIFF", "L"),
    "gray TIFF whose white is 0": lambda image: tiff(255 - np.asarray(Image.fromarray(image).convert("L"))[..., None], 0),
    "black and white TIFF": lambda image: file_of(image, "TIFF", "1", compression="group4"),
    "palette TIFF": lambda image: file_of(image, "TIFF", "P"),
    "CMYK TIFF": lambda image: file_of(image, "TIFF", "CMYK"),
    "TIFF with alpha": lambda image: tiff(opacity(image), 2, tags={EXTRA: [2]}),
    "gray TIFF with alpha": lambda image: file_of(image, "TIFF", "LA"),
}


def truncated(kept: float, kind: str = "JPEG", **options):
    def make(image: np.ndarray) -> bytes:
        data = file_of(image, kind, **options)
        return data[: int(kept * len(data))]

    return make


def flipped_png(image: np.ndarray) -> bytes:
    data = bytearray(file_of(image, "PNG"))
    data[len(data) // 2] ^= 8
    return bytes(data)


def flipped_tiff(image: np.ndarray) -> bytes:
    data = bytearray(file_of(image, "TIFF", compression="tiff_adobe_deflate"))
    data[data.index(b"\x78\x9c") + 40] ^= 8
    return bytes(data)


def flipped_jpeg(image: np.ndarray) -> bytes:
    """Return a JPEG with a flipped bit in its scan, the first of which libjpeg warns. It does not notice most flipped bits."""
    data = bytearray(file_of(image, "JPEG"))
    for at in range(data.index(b"\xff\xda") + 14, len(data) - 2):
        data[at] ^= 16
        try:
            simplejpeg.decode_jpeg(bytes(data), strict=True)
        except ValueError as error:
            if not HARMLESS.search(str(error)):
                return bytes(data)
        data[at] ^= 16
    raise AssertionError("no flip that shows")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def gigantic_png(height: int = 30000, width: int = 30000) -> bytes:
    """Return a PNG with a valid header and only the beginning of so many pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(10**6))) + png_chunk(b"IEND", b"")


def gigantic_jpeg(height: int = 30000, width: int = 30000) -> bytes:
    """Return a small JPEG whose frame header claims this size. libjpeg would fill the rest."""
    data = file_of(picture(0), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def gigantic_chunk(length: int = 2**30) -> bytes:
    """Return a PNG that claims a GiB for the chunk of its pixels."""
    data = file_of(picture(0), "PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + struct.pack(">I", length) + data[at + 4 :]


# {kind: (function that makes it of a picture, its number in the corpus, pattern of the message)}
UNREADABLE = {
    "JPEG that lacks its end": (truncated(0.98), 4, "damaged JPEG .Premature end"),
    "JPEG half there": (truncated(0.85), 4, "damaged JPEG .Premature end"),
    "progressive JPEG half there": (truncated(0.75, progressive=True), 4, "damaged JPEG"),
    "JPEG of which only headers are there": (truncated(0.2), 3, "damaged JPEG"),
    "PNG that lacks its end": (truncated(0.99, "PNG"), 3, "damaged PNG .it ends too soon"),
    "PNG half there": (truncated(0.5, "PNG"), 3, "damaged PNG .it ends too soon"),
    "PNG with a flipped bit": (flipped_png, 8, "damaged PNG"),
    "JPEG with a flipped bit that shows": (flipped_jpeg, 8, "damaged JPEG .Corrupt"),
    "empty file": (lambda image: b"", 4, "empty"),
    "web page": (lambda image: b"<html>404 Not Found</html>", 3, "none of JPEG, PNG, WebP, BMP, TIFF"),
    "zeros": (lambda image: bytes(500), 2, "none of JPEG, PNG, WebP, BMP, TIFF"),
    "animated GIF": (lambda image: animated(image, "GIF"), 2, "none of JPEG, PNG, WebP, BMP, TIFF .*GIF8"),
    "gigantic PNG": (lambda image: gigantic_png(), 1, "too large: 30000 x 30000 pixels"),
    "gigantic JPEG": (lambda image: gigantic_jpeg(), 1, "too large: 30000 x 30000 pixels"),
    "gigantic chunk": (lambda image: gigantic_chunk(), 1, "damaged PNG .it ends too soon"),
    "strip": (lambda image: gigantic_png(65535, 1), 1, "too thin: 65535 x 1 pixels"),
    "WebP half there": (truncated(0.5, "WEBP"), 0, "damaged WebP .it ends too soon"),
    "BMP half there": (truncated(0.5, "BMP"), 0, "damaged BMP .it ends too soon"),
    "TIFF half there": (truncated(0.5, "TIFF"), 0, "damaged TIFF .it ends too soon"),
    "deflated TIFF with a flipped bit": (flipped_tiff, 0, "damaged TIFF .Error -3"),
    "animated WebP": (lambda image: animated(image, "WEBP"), 0, "WebP of a form that is not read .an animation"),
    "BMP with colors in unusual places": (lambda image: bmp(image, 32, (0xFF, 0xFF00, 0xFF0000)), 0, "BMP of a form .*unusual"),
    "TIFF of floats": (lambda image: tiff(image.astype(np.float32), 2, tags={FORMAT: [3] * 3}), 0, "TIFF of a form .*32 bits"),
    "TIFF of signed numbers": (lambda image: tiff(image, 2, tags={FORMAT: [2] * 3}), 0, "TIFF of a form .*unsigned"),
    "TIFF of Lab": (lambda image: file_of(image, "TIFF", "LAB"), 0, "TIFF of a form .*colors of kind 8"),
    "gigantic WebP": (lambda image: gigantic_webp(), 0, "too large: 16000 x 16000 pixels"),
    "gigantic BMP": (lambda image: gigantic_bmp(), 0, "too large: 30000 x 30000 pixels"),
    "gigantic TIFF": (lambda image: gigantic_tiff(), 0, "too large: 30000 x 30000 pixels"),
}


def write_corpus(root: Path, num_images: int = 1000, classes: int = 4) -> dict[int, str]:
    """Write `num_images` files CLASS/NUMBER.jpg. Return {record: kind} of the unreadable ones, which are spread at random."""
    kinds = [kind for kind, (_, count, _) in UNREADABLE.items() for _ in range(count)]
    places = np.random.default_rng(0).permutation(num_images)[: len(kinds)]
    planted = dict(zip(places.tolist(), kinds, strict=True))
    makers = list(READ.values())
    for record in range(num_images):
        make = UNREADABLE[planted[record]][0] if record in planted else makers[record % len(makers)]
        file = root / str(record * classes // num_images) / f"{record:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make(picture(record)))
    return planted
