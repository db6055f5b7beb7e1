"""Bytes of valid and of malicious weight files, which these functions assemble because no library would write them."""

import json
import pickle
import struct
import zlib
from pathlib import Path

MEBIBYTE = 2**20


def npy(descr: str, shape: str, data: bytes = b"", version: bytes = b"\1\0", length: int | None = None) -> bytes:
    """Return a .npy entry whose header states whatever the arguments say."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", length or len(text)) + text + data


def entry(name: str, data: bytes, method: int = 0, crc: int | None = None, size: int | None = None, flags: int = 0) -> tuple:
    """Return an entry of a zip archive. `data` are the stored bytes; the archive states `size` and `crc` about them."""
    crc, size = zlib.crc32(data) if crc is None else crc, len(data) if size is None else size
    fields = struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 33, crc, len(data), size, len(name), 0)
    return name.encode(), fields, data


def archive(*entries: tuple, directory_bytes: int | None = None) -> bytes:
    body = directory = b""
    for name, fields, data in entries:
        directory += b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        body += b"PK\3\4" + fields + name + data
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), directory_bytes or len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


def deflated_zeros(start: bytes, mebibytes: int) -> tuple[bytes, int]:
    """Return (a raw deflate stream, CRC) of `start` and many zeros. The stream repeats one compressed piece."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = compressor.compress(start) + compressor.flush(zlib.Z_FULL_FLUSH)
    stream += (compressor.compress(bytes(MEBIBYTE)) + compressor.flush(zlib.Z_FULL_FLUSH)) * mebibytes + b"\3\0"
    crc = zlib.crc32(start)
    for _ in range(mebibytes):
        crc = zlib.crc32(bytes(MEBIBYTE), crc)
    return stream, crc


def bomb(mebibytes: int, beside: int = 0, crc: int | None = None) -> bytes:
    """Return a valid .npz of many zeros, with another array of `beside` bytes."""
    start = npy("'|u1'", f"({mebibytes * MEBIBYTE},)")
    stream, right_crc = deflated_zeros(start, mebibytes)
    zeros = entry("a.npy", stream, 8, right_crc if crc is None else crc, len(start) + mebibytes * MEBIBYTE)
    return archive(entry("b.npy", npy("'|u1'", f"({beside},)", bytes(beside))), zeros)


def bomb_said_to_be_small() -> bytes:
    start = npy("'<f4'", "(1000,)")
    stream, crc = deflated_zeros(start, 300)
    return archive(entry("a.npy", stream, 8, crc, len(start) + 4000))


def tensor(shape: tuple, start: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def tensors(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Canary:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return open, (self.path, "w")


def short_stream() -> bytes:
    start = npy("'<f4'", "(1000,)")
    stream, crc = deflated_zeros(start, 0)
    return archive(entry("a.npy", stream, 8, crc, len(start) + 4000))


def npz_of_one(data: bytes, **said) -> bytes:
    return archive(entry("a.npy", data, **said))


def pytorch_zip(canary: Path) -> bytes:
    pickled = pickle.dumps(Canary(canary))
    return archive(entry("archive/data.pkl", pickled), entry("archive/data/0", bytes(16)), entry("archive/version", b"3\n"))


TWO = {"a": tensor((2,), 0, 8), "b": tensor((2,), 8, 16)}
SOUND_NPZ = archive(*(entry(f"{name}.npy", npy("'<f4'", "(1000,)", bytes(4000))) for name in "ab"))
SOUND_TENSORS = tensors(TWO, bytes(16))
PAGE = b"\n <!DOCTYPE html><html><title>503 Service Unavailable</title></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 240000000\n"
ODD_JSON = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
