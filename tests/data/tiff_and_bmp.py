"""Writers of TIFF and BMP files of all forms, of which Pillow writes only a few. This file has no tests."""

import struct

import numpy as np

SHORT, LONG = 3, 4
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS = 256, 257, 258, 259, 262, 273, 277, 278, 279
ORIENTATION, EXTRA, FORMAT = 274, 338, 339


def tiff(samples: np.ndarray, photometric: int, order: str = "<", rows: int = 0, tags: dict | None = None) -> bytes:
    """Return a TIFF file of samples [h, w, n] in strips of `rows`. `tags`, {tag: values}, are added or replace others."""
    height, width, count = samples.shape
    samples = samples.astype(samples.dtype.newbyteorder(order))
    rows = rows or height
    strips = [samples[top : top + rows].tobytes() for top in range(0, height, rows)]
    entries = {
        WIDTH: [width], HEIGHT: [height], BITS: [samples.dtype.itemsize * 8] * count, COMPRESSION: [1],
        PHOTOMETRIC: [photometric], SAMPLES: [count], ROWS: [rows],
    }  # fmt: skip
    return with_directory(order, strips, entries | (tags or {}))


def with_directory(order: str, strips: list[bytes], entries: dict[int, list[int]]) -> bytes:
    """Return a TIFF file: the header, the strips, then the directory of the entries with the offsets of the strips."""
    starts, at = [], 8
    for strip in strips:
        starts.append(at)
        at += len(strip) + len(strip) % 2
    body = b"".join(strip + bytes(len(strip) % 2) for strip in strips)
    entries = entries | {OFFSETS: starts, COUNTS: [len(strip) for strip in strips]}
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, at)
    values_at, directory, values = at + 2 + 12 * len(entries) + 4, b"", b""
    for tag, numbers in sorted(entries.items()):
        kind, letter = (LONG, "I") if tag in (OFFSETS, COUNTS, WIDTH) else (SHORT, "H")
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > 4:
            field, values = struct.pack(order + "I", values_at + len(values)), values + packed
        else:
            field = packed.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, kind, len(numbers)) + field
    return head + body + struct.pack(order + "H", len(entries)) + directory + bytes(4) + values


def bmp_with_runs(gray: np.ndarray) -> bytes:
    """Return a BMP file of uint8 [h, w] with run-length encoding (RLE8)."""
    height, width = gray.shape
    rows = b"".join(b"".join(bytes((1, value)) for value in row.tolist()) + b"\0\0" for row in gray[::-1]) + b"\0\1"
    colors = b"".join(bytes((value, value, value, 0)) for value in range(256))
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", 14 + 40 + 1024 + len(rows), 0, 0, 14 + 40 + 1024) + head + colors + rows


def bmp(image: np.ndarray, bits: int, masks: tuple[int, ...] = (), *, top_down: bool = False, header: int = 40) -> bytes:
    """Return a BMP file of uint8 RGB [h, w, 3] with 16, 24 or 32 bits per pixel. `masks` replace the usual color masks."""
    height, width = image.shape[:2]
    usual = {16: (0x7C00, 0x3E0, 0x1F)}.get(bits, (0xFF0000, 0xFF00, 0xFF))
    packed = np.zeros((height, width), np.uint32)
    for color, mask in enumerate((masks or usual)[:3]):
        low = (mask & -mask).bit_length() - 1
        packed |= (image[..., color].astype(np.uint32) >> (8 - (mask >> low).bit_length())) << low
    if len(masks) == 4:
        packed |= np.uint32(0x40404040 & masks[3])
    pixels = packed.astype("<u4")[..., None].view(np.uint8)[..., : bits // 8].reshape(height, -1)
    pixels = np.pad(pixels, ((0, 0), (0, -pixels.shape[1] % 4)))
    rows = pixels if top_down else pixels[::-1]
    size = struct.pack("<HH", width, height) if header == 12 else struct.pack("<ii", width, -height if top_down else height)
    content = struct.pack("<I", header) + size + struct.pack("<HH", 1, bits)
    if header > 12:
        content += struct.pack("<IIiiII", 3 if masks else 0, rows.nbytes, 0, 0, 0, 0)
        colors = struct.pack(f"<{len(masks)}I", *masks)
        content = (content + colors).ljust(max(header, 40 + len(colors)), b"\0")
    return struct.pack("<2sIHHI", b"BM", 14 + len(content) + rows.nbytes, 0, 0, 14 + len(content)) + content + rows.tobytes()
