"""Images: a folder of one class."""

import struct
import zlib

from data.unreadable_images import file_of, gigantic_bmp, gigantic_tiff, gigantic_webp, picture
from hostile.builders import MEBIBYTE, endless, written
from preparation.miniature import jpeg

from mixer_jax.data.images.decode import SCAN


def of_many_scans() -> bytes:
    file = file_of(picture(0, 1024, 1024), "JPEG", progressive=True)
    last = file.rindex(SCAN)
    return file[:-2] + file[last:-2] * 3000 + file[-2:]


def gigantic_jpeg() -> bytes:
    file = bytearray(file_of(picture(0), "JPEG"))
    at = file.index(b"\xff\xc0") + 5
    file[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(file)


def gigantic_png(width: int = 30_000, height: int = 30_000) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    text = b"a\0\0" + zlib.compress(bytes(200 * MEBIBYTE))
    pixels = zlib.compress(bytes(10 * MEBIBYTE))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"zTXt", text) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


IMAGE = {
    "sound": written("a/x.jpg", lambda: jpeg(0, 1024, 1024)),
    "scans": written("a/x.jpg", of_many_scans),
    "gigantic jpeg": written("a/x.jpg", gigantic_jpeg),
    "gigantic png": written("a/x.png", gigantic_png),
    "png with a text of zeros": written("a/x.png", lambda: gigantic_png(16, 16)),
    "gigantic tiff": written("a/x.tif", gigantic_tiff),
    "gigantic bmp": written("a/x.bmp", gigantic_bmp),
    "gigantic webp": written("a/x.webp", gigantic_webp),
    **{name: build for name, build in endless("a/x.jpg").items() if "folder" not in name},
}
