"""The height and width of a PNG, WebP, BMP or TIFF file, read from its header before memory for the pixels is allocated.

The functions also refuse files that OpenCV would decode wrongly or incompletely without saying so. They raise ValueError for a
damaged file and NotImplementedError for an unusual form. They check each claim of a header before they rely on it. A header that
is incomplete may also raise struct.error.
"""

import struct
import zlib
from collections.abc import Iterator

Size = tuple[int, int]  # height, width

PNG = b"\x89PNG\r\n\x1a\n"
ENDS_TOO_SOON = "it ends too soon"


def png_size(data: bytes) -> Size:
    """Return the size of a PNG file after checking that all chunks lie within the file.

    OpenCV would allocate as much memory as a chunk claims to need, even if the chunk is longer than the file.
    """
    offset = len(PNG)
    while offset + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        offset += 12 + length
        if kind == b"IEND" and offset <= len(data) and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
    raise ValueError(ENDS_TOO_SOON)


def webp_size(data: bytes) -> Size:
    """Return the size of a WebP file, on which all of its headers must agree.

    Refuse animations, because OpenCV would blend their first frame with a background.
    """
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ValueError(ENDS_TOO_SOON)
    sizes, offset = [], 12
    while offset + 18 <= size + 8:
        kind, length = struct.unpack_from("<4sI", data, offset)
        start, offset = offset + 8, offset + 8 + length + length % 2
        if start + length > size + 8:
            raise ValueError(ENDS_TOO_SOON)
        if kind in (b"ANIM", b"ANMF"):
            raise NotImplementedError("an animation")
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[start + i : start + i + 3], "little") + 1 for i in (4, 7))
            sizes.append((height, width))
        if kind == b"VP8L":
            bits = int.from_bytes(data[start + 1 : start + 5], "little")
            return _only_size([*sizes, ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)])
        if kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, start + 6)
            return _only_size([*sizes, (height & 0x3FFF, width & 0x3FFF)])
    raise ValueError(ENDS_TOO_SOON)


def _only_size(sizes: list[Size]) -> Size:
    if len(set(sizes)) > 1:
        raise ValueError("its headers have different sizes")
    return sizes[0]


BMP_RGB, BMP_RLE, BMP_MASKS = 0, {1: 8, 2: 4}, 3  # values of the field "compression"; {value: bits per pixel} for RLE
# The color masks that OpenCV supports, by bits per pixel.
BMP_COLORS = {16: ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)), 32: ((0xFF0000, 0xFF00, 0xFF),)}


def bmp_size(data: bytes) -> Size:
    """Return the size of a BMP file. Refuse unusual color masks, because OpenCV would confuse the colors."""
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
    if compression in BMP_RLE and not data[start:].rstrip(b"\0").endswith(b"\0\1"):  # The two bytes mark the end of the bitmap.
        raise ValueError(ENDS_TOO_SOON)
    return abs(height), width


# The tags of a TIFF file that matter here.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS, PLANAR = (
    256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284
)  # fmt: skip
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 322, 323, 324, 325, 338, 339, 530
TIFF_TAGS = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS, PLANAR,
    TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING,
}  # fmt: skip
MAX_TIFF_PARTS = 2**20  # strips or tiles
TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # {type: bytes per value}
TIFF_COLORS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}  # supported photometric interpretations
TIFF_BITS = {"gray": (1, 8, 16), "RGB": (8, 16), "palette": (4, 8), "CMYK": (8,), "YCbCr": (8,)}  # bits per sample
UNCOMPRESSED, JPEG_IN_TIFF, DEFLATE = 1, 7, (8, 32946)
TIFF_COMPRESSIONS = (UNCOMPRESSED, 2, 3, 4, 5, JPEG_IN_TIFF, 32773, *DEFLATE)  # 2 to 4 are fax, 5 is LZW, 32773 is PackBits.

Tags = dict[int, tuple[int, tuple[int, ...]]]
"""{tag: (offset of its first value, its values)}; the values are whole numbers."""


def tiff_size(data: bytes, max_pixels: int) -> Size:
    """Return the size of the first page of a TIFF file.

    Refuse forms that OpenCV decodes wrongly, and files that do not hold all their strips or tiles. `max_pixels` limits the size
    of a tile; deflated data of a larger page are not checked, because the caller refuses such a page.
    """
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
    is_tiled = TILE_WIDTH in tags
    rows, columns = (value(TILE_HEIGHT, 0), value(TILE_WIDTH, 0)) if is_tiled else (min(value(ROWS, height), height), width)
    if rows * columns > max_pixels and is_tiled:
        raise NotImplementedError("tiles of more pixels than config.loader.max_pixels")
    offsets, counts = (tags.get(tag, (0, ()))[1] for tag in ((TILE_OFFSETS, TILE_COUNTS) if is_tiled else (OFFSETS, COUNTS)))
    parts = list(zip(offsets, counts, strict=True))
    if not parts or any(offset + count > len(data) for offset, count in parts):
        raise ValueError(ENDS_TOO_SOON)
    samples_per_plane = samples if value(PLANAR, 1) == 1 else 1
    page_bytes = height * (width * bits * samples_per_plane // 8) * (samples // samples_per_plane)
    if compression == UNCOMPRESSED and sum(counts) < page_bytes:
        raise ValueError(ENDS_TOO_SOON)
    if compression in DEFLATE and height * width <= max_pixels:
        _check_deflated(data, parts, rows * -(-columns * bits * samples_per_plane // 8), page_bytes)
    return height, width


def _check_deflated(data: bytes, parts: list[tuple[int, int]], part_bytes: int, page_bytes: int) -> None:
    """Check the checksums of strips or tiles, and that together they hold the whole page.

    OpenCV would decode as much as it can and report nothing.

    Args:
      data: the bytes of the file.
      parts: (offset, number of bytes) of each strip or tile.
      part_bytes: the most bytes that a strip or tile may have when it is decompressed.
      page_bytes: the fewest bytes that all of them must have when they are decompressed.
    """
    missing_bytes = page_bytes
    for offset, count in parts:
        stream = zlib.decompressobj()
        try:
            missing_bytes -= len(stream.decompress(data[offset : offset + count], part_bytes + 1))
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if not stream.eof:
            raise ValueError("a strip or tile that is not whole, or too large")
    if missing_bytes > 0:
        raise ValueError(ENDS_TOO_SOON)


def tiff_as_stored(data: bytes) -> bytes:
    """Return a TIFF file whose orientation and opacity tags are neutral.

    Otherwise OpenCV would rotate the image and multiply the colors by their opacity.
    """
    order, tags, changed = ("<" if data[:1] == b"I" else ">"), _tiff_tags(data), None
    for tag, neutral in ((ORIENTATION, 1), (EXTRA_SAMPLES, 0)):
        offset, values = tags.get(tag, (0, ()))
        if any(value != neutral for value in values):
            changed = changed or bytearray(data)
            struct.pack_into(f"{order}{len(values)}H", changed, offset, *[neutral] * len(values))
    return bytes(changed) if changed else data


def _tiff_tags(data: bytes) -> Tags:
    """Return the tags of the first page that are in TIFF_TAGS."""
    order, tags = ("<" if data[:1] == b"I" else ">"), {}
    for tag, kind, count, offset in _tiff_entries(data, order):
        if tag not in TIFF_TAGS:
            continue
        letter = {3: "H", 4: "I"}.get(kind)
        if tag in tags or not letter or (tag in (ORIENTATION, EXTRA_SAMPLES) and kind != 3):
            raise ValueError(f"tag {tag} twice, or of another type")
        if count > MAX_TIFF_PARTS:
            raise NotImplementedError(f"{count} strips or tiles")
        tags[tag] = offset, struct.unpack_from(f"{order}{count}{letter}", data, offset)
    return tags


def _tiff_entries(data: bytes, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield (tag, type, number of values, offset of the first value) for each entry of the first directory.

    Raises ValueError if the directory or a value does not lie within the file.
    """
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, directory)
    if directory + 2 + 12 * entries + 4 > len(data):  # The last 4 bytes are the offset of the next directory.
        raise ValueError(ENDS_TOO_SOON)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        size = TIFF_TYPES.get(kind, 1) * count
        start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        if start + size > len(data):
            raise ValueError(ENDS_TOO_SOON)
        yield tag, kind, count, start
