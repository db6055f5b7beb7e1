"""Read and write .npz files of weights, which are zip archives of NAME.npy, as np.savez writes them.

A file may be malicious. Nothing in it is unpickled, and its header is checked against its bytes before memory is allocated.
"""

import io
import json
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

import numpy as np

from mixer_jax.checkpoints.refusal import AGAIN, LIST_LIMIT, PYTORCH, Opened, Refused, check_shape, check_unique

CHUNK = 1 << 20  # The number of bytes that are read at a time.
# A file of n bytes may declare at most EXPANSION_LIMIT * n + EXPANSION_FREE bytes of arrays. Compressed weights declare 1 to 3 n.
EXPANSION_LIMIT, EXPANSION_FREE = 20, 64 << 20
COMMENT_LIMIT = 65_535  # The zip format's limit of a comment, in bytes.
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip


class _Entry(NamedTuple):
    """The header of one array in an .npz file."""

    info: zipfile.ZipInfo
    header_bytes: int
    dtype: np.dtype
    fortran_order: bool
    shape: tuple[int, ...]


class _BoundedFile(io.FileIO):
    """A file whose reads are limited to LIST_LIMIT bytes.

    The zipfile module reads the archive's list of entries at once, however long the file declares it to be.
    """

    def read(self, size: int = -1) -> bytes:
        """Read at most LIST_LIMIT bytes. Raises Refused if more are asked for."""
        if size > LIST_LIMIT:
            raise Refused(f"declares a list of arrays of {size} bytes, which no weights need. {AGAIN}")
        return super().read(LIST_LIMIT if size < 0 else size)


@contextmanager
def open_npz(path: str) -> Iterator[Opened]:
    """Open an .npz file, check it, and yield ({name: (dtype, shape)}, a function that reads the arrays, metadata).

    Raises Refused for a file that is damaged or malicious.
    """
    with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        _check_archive(infos)
        _check_sizes(file, infos, archive.comment)
        entries = {info.filename.removesuffix(".npy"): _read_npy_header(archive, info) for info in infos}

        def read() -> dict[str, np.ndarray]:
            if sum(info.file_size for info in infos) > os.path.getsize(path):
                _check_entries(archive, infos)
            return {name: _read_npy(archive, entry) for name, entry in entries.items()}

        signatures = {name: (entry.dtype.name, entry.shape) for name, entry in entries.items()}
        yield signatures, read, _metadata_in(archive.comment)


def _check_entries(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> None:
    """Decompress every entry to its end without keeping it, so that a damaged file never takes more memory than its own size.

    Raises Refused if an entry is shorter than it declares. zipfile raises an error if a CRC differs.
    """
    for info in infos:
        with archive.open(info) as data:
            for _ in _pieces(data, info.file_size):
                pass


def _check_archive(infos: list[zipfile.ZipInfo]) -> None:
    """Raise Refused if the entries are not distinct .npy files, or are compressed by an unusual method."""
    names = [info.filename for info in infos]
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        raise Refused(PYTORCH)
    check_unique(names)
    for info in infos:
        if not info.filename.endswith(".npy"):
            raise Refused(f"holds '{info.filename[:100]}', not an array (.npy): it is some other zip archive")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"holds '{info.filename[:100]}' compressed as numpy never does")


def _check_sizes(file: IO[bytes], infos: list[zipfile.ZipInfo], comment: bytes) -> None:
    """Raise Refused if the arrays are much larger than the file, or if the file does not end where its zip archive ends."""
    size = file.seek(0, os.SEEK_END)
    declared = sum(info.file_size for info in infos)
    if declared > EXPANSION_LIMIT * size + EXPANSION_FREE:
        raise Refused(
            f"declares {declared} bytes of arrays in a file of {size}: a decompression bomb, or nearly all zeros. "
            "If you trust it, save it again with np.savez, uncompressed"
        )
    # The last record of a zip file has 20 bytes, then the length of the comment in 2 bytes, then the comment.
    file.seek(max(0, size - 22 - len(comment)))
    last = file.read()
    if last[:4] != b"PK\5\6" or int.from_bytes(last[20:22], "little") != len(comment):
        raise Refused(f"goes on after its end, or was cut short. {AGAIN}")


def _read_npy_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    """Return the header of an array, and check it.

    NumPy's own reader reads it, and only version 1.0 of the format is accepted, whose headers are short. In other versions, NumPy
    may read a header of 4 GB before it rejects the header as too long.
    """
    holds = f"holds '{info.filename[:100]}'"
    with archive.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise Refused(f"{holds} in a version of numpy's format that plain numbers never need")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        header_bytes = file.tell()
    if dtype.hasobject:
        raise Refused(f"{holds}, which is pickled Python objects, and loading those can run code")
    if dtype.name not in DTYPES:
        raise Refused(f"{holds} of dtype {str(dtype)[:100]}, not plain numbers (bfloat16 needs a .safetensors file)")
    check_shape(info.filename, shape)
    if header_bytes + math.prod(shape) * dtype.itemsize != info.file_size:
        raise Refused(f"{holds} of shape {str(shape)[:100]} and dtype {dtype.name} in {info.file_size} bytes. {AGAIN}")
    return _Entry(info, header_bytes, dtype, fortran_order, shape)


def _pieces(file: IO[bytes], count: int) -> Iterator[bytes]:
    """Yield the next `count` bytes in chunks. Raises Refused if fewer are left.

    When the last bytes of an entry are read, zipfile checks the entry's CRC.
    """
    for start in range(0, count, CHUNK):
        piece = file.read(min(CHUNK, count - start))
        if len(piece) < min(CHUNK, count - start):
            raise Refused(f"is damaged or cut short: bytes are missing. {AGAIN}")
        yield piece


def _read_npy(archive: zipfile.ZipFile, entry: _Entry) -> np.ndarray:
    """Return the array of an entry, in native byte order."""
    data = np.empty(entry.info.file_size - entry.header_bytes, np.uint8)
    with archive.open(entry.info) as file:
        file.read(entry.header_bytes)
        for number, piece in enumerate(_pieces(file, data.size)):
            data[number * CHUNK : number * CHUNK + len(piece)] = np.frombuffer(piece, np.uint8)
    array = data.view(entry.dtype)
    if not entry.dtype.isnative:
        array = array.byteswap(inplace=True).view(entry.dtype.newbyteorder("="))
    return array.reshape(entry.shape, order="F" if entry.fortran_order else "C")


def _metadata_in(comment: bytes) -> dict[str, str]:
    """Return the metadata in a zip file's comment, or {} if the comment is not the JSON object that we write."""
    try:
        metadata = json.loads(comment)
    except (ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()) else {}


def write_npz(path: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write arrays to an .npz file without compression, and the metadata as JSON into the zip comment.

    Raises Refused if the metadata is too long for a zip comment.
    """
    comment = json.dumps(metadata, sort_keys=True).encode() if metadata else b""
    if len(comment) > COMMENT_LIMIT:
        raise Refused(f"cannot hold {len(comment)} bytes of metadata, only {COMMENT_LIMIT}. Write a .safetensors file")
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = comment
        for name, array in arrays.items():
            # `ZipFile.open` dates every entry 1980, so equal arrays give equal bytes. `writestr` would store the current time.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
