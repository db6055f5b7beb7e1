"""JPEGs that are decoded only down to the last row that a crop needs.

The height in a copy of the frame header is replaced by a smaller one. libjpeg then stops at that row and skips the rest of the
scan. On average, a training crop ends at four fifths of the height, so this saves a sixth of the decoding. The pixels are
identical, bit for bit, to those of `decode` in decode.py.

This decoding finds a missing end of the file, but no other damage. Damage in the skipped rest is not read, and earlier damage is
hidden, because libjpeg warns of the skipped rest in any case. It is therefore used only for files that are known to be sound:
`python -m mixer_jax prepare` decodes every file whole and stores the result of `supports_partial_decoding` with it in the shard.
The checksums of the shard show that the file has not changed since.
"""

import struct

import numpy as np
import simplejpeg

from mixer_jax.data.images.decode import JPEG, UnreadableImageError, jpeg_frame, jpeg_segments
from mixer_jax.data.images.headers import ENDS_TOO_SOON

SEQUENTIAL = (0xC0, 0xC1)  # markers of the frames whose scan holds the rows from top to bottom
SCAN, END = 0xDA, b"\xff\xd9"
CONTEXT = 2  # rows; libjpeg interpolates the color of a row from up to so many rows below it


class PartialJpeg:
    """A JPEG whose pixels are decoded when they are indexed: `image[rows, columns]`, with two slices, is uint8 [h, w, 3]."""

    def __init__(self, data: bytes, max_pixels: int):
        """Take the bytes of a file for which `supports_partial_decoding` is true.

        Raises UnreadableImageError if the image has more than `max_pixels` pixels, or if the file does not have its end.
        """
        height, width, self._frame = jpeg_frame(data, max_pixels)
        if data.rfind(END, self._frame) < 0:
            raise UnreadableImageError(f"a damaged JPEG ({ENDS_TOO_SOON})")
        self._data, self.shape = data, (height, width, 3)

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        rows, columns = part
        _, stop, _ = rows.indices(self.shape[0])
        cut = bytearray(self._data)
        struct.pack_into(">H", cut, self._frame + 5, min(stop + CONTEXT, self.shape[0]))
        return simplejpeg.decode_jpeg(cut, colorspace="RGB", fastdct=True, strict=False)[rows, columns]


def supports_partial_decoding(data: bytes) -> bool:
    """Return whether a file is a JPEG with all its colors in one scan, from top to bottom, that decodes without a warning."""
    if not data.startswith(JPEG):
        return False
    offsets = {marker: offset for marker, offset in jpeg_segments(data) if marker in (*SEQUENTIAL, SCAN)}
    if len(offsets) < 2:
        return False
    colors_of_frame, colors_of_scan = data[min(offsets.values()) + 9], data[offsets[SCAN] + 4]
    if colors_of_frame != colors_of_scan:
        return False
    try:
        simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=True, strict=True)
    except ValueError:
        return False
    return True
