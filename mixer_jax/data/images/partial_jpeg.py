"""JPEGs that are decoded no farther than the last row that is asked for.

A training crop ends at four fifths of the height on average, so that this saves a sixth of the decoding. How: the frame header is
made to tell a smaller height, where libjpeg stops; it passes over the rest of the scan.

That the file has an end is seen, other damage in that rest is not, and the warning that libjpeg gives for passing over hides
damage before. So this is for files that are known to be sound: `prepare` decodes each whole and keeps what
`supports_partial_decoding` says beside it in the shard, whose checksums tell that it still is what it was. What comes out is to
the bit what decode.py gives.
"""

import struct

import numpy as np
import simplejpeg

from mixer_jax.data.images.decode import JPEG, UnreadableImageError, jpeg_frame, jpeg_segments
from mixer_jax.data.images.headers import ENDS_TOO_SOON

SEQUENTIAL = (0xC0, 0xC1)  # frames whose scan has the rows in their order
SCAN, END = 0xDA, b"\xff\xd9"
CONTEXT = 2  # rows below the last one, whose colour libjpeg mixes into its own


class PartialJpeg:
    """An image of which `image[rows, columns]`, two slices, is uint8 [h, w, 3]."""

    def __init__(self, data: bytes, max_pixels: int):
        """Take a file for which `supports_partial_decoding` holds; UnreadableImageError if it has more than `max_pixels`."""
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
    """Return whether a file is a JPEG with all its colors in one scan, from the top down, that decodes without a warning."""
    if not data.startswith(JPEG):
        return False
    offsets = {marker: at for marker, at in jpeg_segments(data) if marker in (*SEQUENTIAL, SCAN)}
    if len(offsets) < 2 or data[min(offsets.values()) + 9] != data[offsets[SCAN] + 4]:  # colours of the frame, and of the scan
        return False
    try:
        simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=True, strict=True)
    except ValueError:
        return False
    return True
