"""A corpus of 1000 small images, of all kinds that are read and 52 that are not, made in a moment."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from mixer_jax.data.images.decode import HARMLESS


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth colours, so that a JPEG of them is close: uint8 [h, w, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def file_of(image: np.ndarray, kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, kind, **options)
    return file.getvalue()


def rotated(image: np.ndarray, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """To be shown turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(image, kind, mode, exif=exif)


def sixteen_bits(image: np.ndarray, low_byte: int = 77) -> bytes:
    return cv2.imencode(".png", image[..., ::-1].astype(np.uint16) * 256 + low_byte)[1].tobytes()


def with_alpha(image: np.ndarray) -> bytes:
    alpha = np.random.default_rng(0).integers(0, 256, (*image.shape[:2], 1), np.uint8)
    return cv2.imencode(".png", np.concatenate([image[..., ::-1], alpha], -1))[1].tobytes()


def animated(image: np.ndarray, kind: str = "PNG") -> bytes:
    others = [Image.fromarray(np.roll(image, i, 1)) for i in (3, 6)]
    return file_of(image, kind, save_all=True, append_images=others, duration=100)


def stray_bytes(image: np.ndarray) -> bytes:
    """Three bytes that belong nowhere before the first table of a JPEG: libjpeg warns, the pixels are sound."""
    data = file_of(image, "JPEG")
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\x00\x00\x13" + data[at:]


READ = {
    "JPEG": lambda image: file_of(image, "JPEG", quality=90),
    "progressive JPEG": lambda image: file_of(image, "JPEG", progressive=True),
    "JPEG of RGB": lambda image: file_of(image, "JPEG", keep_rgb=True),
    "grey JPEG": lambda image: file_of(image, "JPEG", "L"),
    "CMYK JPEG": lambda image: file_of(image, "JPEG", "CMYK"),
    "rotated JPEG": rotated,
    "rotated CMYK JPEG": lambda image: rotated(image, mode="CMYK"),
    "JPEG with stray bytes before its tables": stray_bytes,
    "JPEG with bytes after its end": lambda image: file_of(image, "JPEG") + b"more",
    "PNG": lambda image: file_of(image, "PNG"),
    "grey PNG": lambda image: file_of(image, "PNG", "L"),
    "black and white PNG": lambda image: file_of(image, "PNG", "1"),
    "palette PNG": lambda image: file_of(image, "PNG", "P"),
    "palette PNG with a transparent colour": lambda image: file_of(image, "PNG", "P", transparency=3),
    "PNG of 16 bits": sixteen_bits,
    "PNG with alpha": with_alpha,
    "grey PNG with alpha": lambda image: file_of(image, "PNG", "LA"),
    "rotated PNG": lambda image: rotated(image, "PNG"),
    "animated PNG": animated,
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


def flipped_jpeg(image: np.ndarray) -> bytes:
    """With one bit of the scan flipped, the first for which libjpeg says that it notices; it does not notice most of them."""
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
    """A sound header, and the beginning of so many pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(10**6))) + png_chunk(b"IEND", b"")


def gigantic_jpeg(height: int = 30000, width: int = 30000) -> bytes:
    """A small picture whose frame header says so; libjpeg would fill up the rest."""
    data = file_of(picture(0), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def gigantic_chunk(length: int = 2**30) -> bytes:
    """A PNG whose pixels are said to take a GiB of the file."""
    data = file_of(picture(0), "PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + struct.pack(">I", length) + data[at + 4 :]


# kind: how to make it of a picture, how many of the corpus are, what the message says
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
    "web page": (lambda image: b"<html>404 Not Found</html>", 3, "neither JPEG nor PNG"),
    "zeros": (lambda image: bytes(500), 2, "neither JPEG nor PNG"),
    "animated GIF": (lambda image: animated(image, "GIF"), 2, "neither JPEG nor PNG .*GIF8"),
    "gigantic PNG": (lambda image: gigantic_png(), 1, "too large: 30000 x 30000 pixels"),
    "gigantic JPEG": (lambda image: gigantic_jpeg(), 1, "too large: 30000 x 30000 pixels"),
    "gigantic chunk": (lambda image: gigantic_chunk(), 1, "damaged PNG .it ends too soon"),
    "strip": (lambda image: gigantic_png(65535, 1), 1, "too thin: 65535 x 1 pixels"),
}


def write_corpus(root: Path, num_images: int = 1000, classes: int = 4) -> dict[int, str]:
    """Writes CLASS/NUMBER.jpg, `num_images` in all; returns record -> kind for the 52 that are unreadable, spread at random."""
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
