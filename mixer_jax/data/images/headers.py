"""Height and width of a PNG, WebP, BMP or TIFF file, from its header: before anything of that size is allocated.

Each function also refuses what OpenCV would read wrongly or in part without a word: with a ValueError a damaged file, with a
NotImplementedError an unusual form. Nothing that a header claims is believed before it is checked.
"""

import struct
import zlib
from collections.abc import Iterator

Size = tuple[int, int]  # height, width

PNG = b"\x89PNG\r\n\x1a\n"
ENDS_TOO_SOON = "it ends too soon"


def png_size(data: bytes) -> Size:
    """Read all chunks' lengths: for one that is longer than the file, OpenCV would allocate what it claims."""
    at = len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND" and at <= len(data) and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
    raise ValueError(ENDS_TOO_SOON)


def webp_size(data: bytes) -> Size:
    """Read the chunks. Refuse animations, of which OpenCV would blend the first frame with a background."""
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ValueError(ENDS_TOO_SOON)
    sizes, at = [], 12
    while at + 18 <= size + 8:
        kind, length = struct.unpack_from("<4sI", data, at)
        start, at = at + 8, at + 8 + length + length % 2
        if start + length > size + 8:
            raise ValueError(ENDS_TOO_SOON)
        if kind in (b"ANIM", b"ANMF"):
            raise NotImplementedError("an animation")
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[start + i : start + i + 3], "little") + 1 for i in (4, 7))
            sizes.append((height, width))
        if kind == b"VP8L":
            bits = int.from_bytes(data[start + 1 : start + 5], "little")
            return _agree([*sizes, ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)])
        if kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, start + 6)
            return _agree([*sizes, (height & 0x3FFF, width & 0x3FFF)])
    raise ValueError(ENDS_TOO_SOON)


def _agree(sizes: list[Size]) -> Size:
    if len(set(sizes)) > 1:
        raise ValueError("its headers have different sizes")
    return sizes[0]


BMP_RGB, BMP_RLE, BMP_MASKS = 0, {1: 8, 2: 4}, 3  # compression; of RLE the bits a pixel
BMP_COLORS = {16: ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)), 32: ((0xFF0000, 0xFF00, 0xFF),)}  # masks that OpenCV knows


def bmp_size(data: bytes) -> Size:
    """Read the header. Refuse colors in unusual places, which OpenCV would take for others."""
    start, header = struct.unpack_from("<II", data, 10)
    width, height, _, bits = struct.unpack_from("<HHHH" if header == 12 else "<iiHH", data, 18)
    compression = struct.unpack_from("<I", data, 30)[0] if header > 12 else BMP_RGB
    if compression == BMP_MASKS and struct.unpack_from("<III", data, 54) not in BMP_COLORS.get(bits, ()):
        raise NotImplementedError(f"{bits} bits a pixel, with colors in unusual places")
    if compression not in (BMP_RGB, BMP_MASKS) and BMP_RLE.get(compression) != bits:
        raise NotImplementedError(f"compression {compression} with {bits} bits a pixel")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise NotImplementedError(f"{bits} bits a pixel")
    if compression not in BMP_RLE and start + (width * bits + 31) // 32 * 4 * abs(height) > len(data):
        raise ValueError(ENDS_TOO_SOON)
    if compression in BMP_RLE and not data[start:].rstrip(b"\0").endswith(b"\0\1"):  # the mark of the end
        raise ValueError(ENDS_TOO_SOON)
    return abs(height), width


# Tags of a TIFF file.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS, PLANAR = (
    256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284
)  # fmt: skip
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 322, 323, 324, 325, 338, 339, 530
TIFF_TAGS = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS, PLANAR,
    TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING,
}  # fmt: skip
MAX_TIFF_PARTS = 2**20  # strips or tiles
TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes a value
TIFF_COLORS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}  # photometric interpretations that are read
TIFF_BITS = {"grey": (1, 8, 16), "RGB": (8, 16), "palette": (4, 8), "CMYK": (8,), "YCbCr": (8,)}
UNCOMPRESSED, JPEG_IN_TIFF, DEFLATE = 1, 7, (8, 32946)
TIFF_COMPRESSIONS = (UNCOMPRESSED, 2, 3, 4, 5, JPEG_IN_TIFF, 32773, *DEFLATE)  # fax: 2 to 4; LZW: 5; PackBits: 32773

Tags = dict[int, tuple[int, tuple[int, ...]]]
"""{tag: (offset of its first value, its values)}, of values that are whole numbers."""


def tiff_size(data: bytes, max_pixels: int) -> Size:
    """Read the directory of the first page. Refuse what OpenCV reads wrongly, and strips or tiles that are not all there."""
    tags = _tiff_tags(data)

    def value(tag: int, default: int) -> int:
        values = tags.get(tag, (0, (default,)))[1]
        if len(set(values)) != 1:
            raise ValueError(f"tag {tag} has the values {values[:4]}")
        return values[0]

    height, width, samples = value(HEIGHT, 0), value(WIDTH, 0), value(SAMPLES, 1)
    bits, compression = value(BITS, 1), value(COMPRESSION, UNCOMPRESSED)
    colors = TIFF_COLORS.get(value(PHOTOMETRIC, -1), "")
    if not colors or bits not in TIFF_BITS[colors] or not 1 <= samples <= 4:
        raise NotImplementedError(f"{samples} samples of {bits} bits, colors of kind {value(PHOTOMETRIC, -1)}")
    if value(SAMPLE_FORMAT, 1) != 1:
        raise NotImplementedError("samples that are no unsigned integers")
    if compression not in TIFF_COMPRESSIONS:
        raise NotImplementedError(f"compression {compression}")
    if value(FILL_ORDER, 1) != 1 and bits > 1:
        raise NotImplementedError("bits in reversed order")
    if colors == "YCbCr" and compression != JPEG_IN_TIFF and tags.get(SUBSAMPLING, (0, ()))[1] != (1, 1):
        raise NotImplementedError("YCbCr with fewer samples of color")
    tiles = TILE_WIDTH in tags
    rows, columns = (value(TILE_HEIGHT, 0), value(TILE_WIDTH, 0)) if tiles else (min(value(ROWS, height), height), width)
    if rows * columns > max_pixels and tiles:
        raise NotImplementedError("tiles of more pixels than config.loader.max_pixels")
    offsets, counts = (tags.get(tag, (0, ()))[1] for tag in ((TILE_OFFSETS, TILE_COUNTS) if tiles else (OFFSETS, COUNTS)))
    parts = list(zip(offsets, counts, strict=True))
    if not parts or any(offset + count > len(data) for offset, count in parts):
        raise ValueError(ENDS_TOO_SOON)
    per_plane = samples if value(PLANAR, 1) == 1 else 1
    needed = height * (width * bits * per_plane // 8) * (samples // per_plane)
    if compression == UNCOMPRESSED and sum(counts) < needed:
        raise ValueError(ENDS_TOO_SOON)
    if compression in DEFLATE and height * width <= max_pixels:
        _check_deflated(data, parts, rows * -(-columns * bits * per_plane // 8), needed)
    return height, width


def _check_deflated(data: bytes, parts: list[tuple[int, int]], part_bytes: int, needed: int) -> None:
    """Check the checksums of strips or tiles, and that they are enough: OpenCV shows what it can and says nothing."""
    for offset, count in parts:
        stream = zlib.decompressobj()
        try:
            needed -= len(stream.decompress(data[offset : offset + count], part_bytes + 1))
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if not stream.eof:
            raise ValueError("a strip or tile that is not whole, or too large")
    if needed > 0:
        raise ValueError(ENDS_TOO_SOON)


def tiff_as_stored(data: bytes) -> bytes:
    """Return a TIFF without the two tags that make OpenCV turn it, and multiply its colors by their opacity."""
    order, tags, changed = ("<" if data[:1] == b"I" else ">"), _tiff_tags(data), None
    for tag, neutral in ((ORIENTATION, 1), (EXTRA_SAMPLES, 0)):
        at, values = tags.get(tag, (0, ()))
        if any(value != neutral for value in values):
            changed = changed or bytearray(data)
            struct.pack_into(f"{order}{len(values)}H", changed, at, *[neutral] * len(values))
    return bytes(changed) if changed else data


def _tiff_tags(data: bytes) -> Tags:
    """Read those of TIFF_TAGS that are there."""
    order, tags = ("<" if data[:1] == b"I" else ">"), {}
    for tag, kind, count, at in _tiff_entries(data, order):
        if tag not in TIFF_TAGS:
            continue
        letter = {3: "H", 4: "I"}.get(kind)
        if tag in tags or not letter or (tag in (ORIENTATION, EXTRA_SAMPLES) and kind != 3):
            raise ValueError(f"tag {tag} twice, or of another type")
        if count > MAX_TIFF_PARTS:
            raise NotImplementedError(f"{count} strips or tiles")
        tags[tag] = at, struct.unpack_from(f"{order}{count}{letter}", data, at)
    return tags


def _tiff_entries(data: bytes, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield (tag, type, number of values, offset of the first) of the first directory, all within the file."""
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, directory)
    if directory + 2 + 12 * entries + 4 > len(data):  # with the place of the next directory
        raise ValueError(ENDS_TOO_SOON)
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, at)
        size = TIFF_TYPES.get(kind, 1) * count
        start = at + 8 if size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
        if start + size > len(data):
            raise ValueError(ENDS_TOO_SOON)
        yield tag, kind, count, start
