"""Files of labels, and archives."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from hostile.builders import MEBIBYTE, Build, endless, mebibytes_of_zeros, written
from preparation.downloads import mat
from preparation.miniature import jpeg, make_tar, make_zip, tar_bytes


def flowers(folder: Path, labels: bytes) -> None:
    (folder / "imagelabels.mat").write_bytes(labels)
    (folder / "setid.mat").write_bytes(mat({"trnid": [[1, 2]], "valid": [[1]], "tstid": [[1]]}))


def element(kind: int, data: bytes, size: int | None = None) -> bytes:
    """Return a data element of a .mat file of version 5: type, size, content."""
    return struct.pack("<II", kind, len(data) if size is None else size) + data


def mat_header() -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)


def matrix_head(array_class: int, dims: tuple[int, ...]) -> bytes:
    name = element(1, b"labels\0\0")[:4] + struct.pack("<I", 6) + b"labels\0\0"
    return element(6, struct.pack("<II", array_class, 0)) + element(5, struct.pack(f"<{len(dims)}i", *dims)) + name


def mat_of_zeros() -> bytes:
    """Compressed to a few hundred kilobytes."""
    size = 800 * MEBIBYTE
    head = matrix_head(6, (1, size // 8)) + struct.pack("<II", 9, size)
    stream = zlib.compressobj(9)
    packed = stream.compress(struct.pack("<II", 14, len(head) + size) + head) + stream.flush(zlib.Z_FULL_FLUSH)
    return mat_header() + element(15, packed + mebibytes_of_zeros(size // MEBIBYTE, stream))


def mat_of_cells() -> bytes:
    """Declares 300 million cells and holds none."""
    head = matrix_head(1, (1, 300_000_000))
    return mat_header() + element(14, head)


def tar_gz_of_zeros() -> bytes:
    return gzip.compress(b"")[:10] + mebibytes_of_zeros(2000, zlib.compressobj(9, zlib.DEFLATED, -15))


LABELS = {
    "sound": written("labels.csv", lambda: b"image_00001.jpg,cat\nimage_00002.jpg,dog\n"),
    "sound mat": lambda folder: flowers(folder, mat({"labels": [[1, 2]]})),
    "label of 3e8": lambda folder: flowers(folder, mat({"labels": [[1, 300_000_000]]})),
    "mat of zeros": lambda folder: flowers(folder, mat_of_zeros()),
    "mat of cells": lambda folder: flowers(folder, mat_of_cells()),
    "deep": written("real.json", lambda: b"[" * 10**6),
    "a number of a million digits": written("labels.txt", lambda: b"image_00001.jpg " + b"9" * 10**6 + b"\nimage_00002.jpg 1\n"),
    "number lists of a million digits": written("truth.txt", lambda: b"9" * 10**6 + b"\n1\n"),
    "json of a million digits": written("real.json", lambda: b"[[" + b"9" * 10**6 + b"],[1]]"),
    "kit of zeros": written("kit.tar.gz", tar_gz_of_zeros),
    "quotes without end": written("labels.csv", lambda: b'"' * 10**6),
    **endless("labels.csv"),
    **endless("real.json"),
    **endless("kit.tar.gz"),
    **endless("imagelabels.mat"),
}


def tar_that_declares(size: int) -> bytes:
    """Return a tar of a member of a size that it does not have."""
    content = bytearray(tar_bytes({"a/x.jpg": b"1"}))
    content[124:136] = b"\x80" + size.to_bytes(11, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


def zip_of_zeros(folder: Path) -> None:
    make_zip(folder / "zip.zip", {"a/x.jpg": bytes(300 * MEBIBYTE)})


def images_for(make: Callable, name: str) -> Build:
    return lambda folder: make(folder / name, {f"{label}/{number}.jpg": jpeg(number) for number in (0, 1) for label in "ab"})


def tars_with(make: Callable[[Path], object]) -> Build:
    """Return a builder of a folder of tars, one of which is something else."""

    def build(folder: Path) -> None:
        (folder / "tars").mkdir()
        make_tar(folder / "tars/a.tar", {"x.jpg": jpeg(0)})
        make(folder / "tars/b.tar")

    return build


ARCHIVE = {
    "sound": images_for(make_tar, "tar.tar"),
    "sound zip": images_for(make_zip, "zip.zip"),
    "tar of 2^60 bytes": written("tar.tar", lambda: tar_that_declares(2**60)),
    "tar that leads out": lambda folder: make_tar(folder / "tar.tar", {"../../canary": b"x"}),
    "zip that leads out": lambda folder: make_zip(folder / "zip.zip", {"../../canary": b"x"}),
    "zip of zeros": zip_of_zeros,
    "cifar of zeros": written("cifar.tar.gz", tar_gz_of_zeros),
    "cifar of pickles": written("cifar.tar.gz", lambda: gzip.compress(tar_bytes({"c/data_batch_1": b"cos\nsystem\n"}))),
    "a tar that is a pipe": tars_with(os.mkfifo),
    "a tar that is a device": tars_with(lambda file: file.symlink_to("/dev/zero")),
    **endless("tar.tar"),
    **endless("zip.zip"),
    **endless("cifar.tar.gz"),
}
