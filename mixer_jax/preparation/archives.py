"""The members of tar and zip archives. They are listed with their offsets, read in place by many threads, and never extracted.

The name of a member identifies an image and is never used as a path: no file is written under it. An archive is nevertheless
refused as a whole, before any image is read, if it contains something that no data set contains: links, devices, sparse or
encrypted members, absolute names or `..`, a zip member that grows by more than a factor of MAX_RATIO, or more than MAX_MEMBERS
members. A truncated archive is refused too. listing.py also refuses an archive that contains a name twice.

Tars are read by a parser of our own, because Python's `tarfile` reads names of any length into memory and follows links. The
parser supports ustar, GNU long names, and the path and size in pax headers. Tar programs write these for regular files.
"""

import gzip
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mixer_jax.data.sources.class_tree import is_hidden
from mixer_jax.errors import UserError
from mixer_jax.storage import open_regular

MAX_MEMBERS = 20_000_000  # ImageNet-21k has 14 197 122 images
MAX_NAME_BYTES = 4096
MAX_HEADER_BYTES = 64 * 2**10  # the size of a pax header or of a GNU long name
MAX_RATIO = 100  # Images are compressed already, so a zip makes them hardly smaller.
MAX_SMALL_BYTES = 256 * 2**20  # CIFAR has 184 MB
BLOCK = 512  # bytes

ReadAt = Callable[[int, int], bytes]
"""(number of bytes, offset) -> bytes of one file, as os.pread reads them."""


class Member(NamedTuple):
    """A file or folder in an archive."""

    name: str  # The name of a folder ends with a slash.
    offset: int  # where the member's bytes begin in the archive
    size: int  # bytes


def check_name(name: str, where: str) -> str:
    """Return the name without a leading `./`. Raises UserError if it is unprintable or could lead out of the archive's folder."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or not name.isprintable():
        raise UserError(f"{where} has a member {name!r}, which leads out of its folder: this is not a data set's archive.")
    return name.removeprefix("./")


def tar_members(file: Path) -> Iterator[Member]:
    """Yield the regular files and folders of an uncompressed tar, in their order in the tar."""
    with open_regular(file) as opened:
        descriptor = opened.fileno()
        yield from members_within(lambda size, at: os.pread(descriptor, size, at), 0, os.fstat(descriptor).st_size, str(file))


def nested_tar_members(file: Path) -> Iterator[Member]:
    """Yield the members of the tars in a tar, named TAR/NAME.

    ImageNet's training images are distributed in this form, with a tar for each class.
    """
    with open_regular(file) as opened:
        descriptor = opened.fileno()

        def read(size: int, at: int) -> bytes:
            return os.pread(descriptor, size, at)

        for outer in members_within(read, 0, os.fstat(descriptor).st_size, str(file)):
            if outer.name.endswith("/") or is_hidden(outer.name):
                yield outer
                continue
            if not outer.name.endswith(".tar"):
                raise UserError(f"{file} holds {outer.name}, which is no tar: a tar of images is given as tar:{file}.")
            where, folder = f"{file}, in it {outer.name},", f"{outer.name.removesuffix('.tar')}/"
            yield Member(folder, outer.offset, 0)  # A tar without an image is a class too.
            for inner in members_within(read, outer.offset, outer.offset + outer.size, where):
                yield inner._replace(name=folder + inner.name)


def members_within(read: ReadAt, start: int, end: int, where: str) -> Iterator[Member]:
    """Yield the regular files and folders of a tar.

    Args:
        read: Reads bytes of the file that contains the tar.
        start: The offset in this file where the tar begins.
        end: The offset where the tar ends.
        where: What messages call the tar.

    Raises:
        UserError: The tar is damaged, or contains something that no data set contains.
    """
    offset, count = start, 0
    name, size = None, None  # those that an extension header gives to the next member
    while True:
        header = read(BLOCK, offset) if offset + BLOCK <= end else b""
        if len(header) < BLOCK:
            raise UserError(
                f"{where} ends too soon (byte {offset - start} of a tar): copy it again, and compare its size or digest."
            )
        if header == bytes(BLOCK):
            return
        member, kind = _parse(header, offset, where)
        offset = member.offset + -(-member.size // BLOCK) * BLOCK
        if kind in (b"L", b"x", b"g"):  # It describes the next member. Type g describes all members and is ignored.
            if member.size > MAX_HEADER_BYTES:
                raise UserError(f"{where} has a header of {member.size} bytes: this is not a data set's archive.")
            extension = read(member.size, member.offset)
            if kind == b"L":
                name = _text(extension.rstrip(b"\0"), where)
            elif kind == b"x":
                name, size = _pax(extension, name, size, where)
            continue
        member = member._replace(name=member.name if name is None else name, size=member.size if size is None else size)
        offset = member.offset + -(-member.size // BLOCK) * BLOCK
        name = size = None
        count += 1
        if count > MAX_MEMBERS:
            raise UserError(f"{where} has more than {MAX_MEMBERS} members.")
        if kind == b"5" or (kind == b"\0" and member.name.endswith("/")):
            if folder := check_name(member.name, where).rstrip("/"):
                yield member._replace(name=f"{folder}/")
            continue
        if kind not in (b"0", b"\0", b"7"):
            type_name = {b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"6": "pipe"}.get(
                kind, "special member"
            )
            raise UserError(f"{where} holds a {type_name} ({member.name!r}): only plain files are read. Pack it anew without.")
        if member.offset + member.size > end:
            raise UserError(f"{where} ends within {member.name!r} of {member.size} bytes: copy it again, and compare its size.")
        yield member._replace(name=check_name(member.name, where))


def _parse(header: bytes, offset: int, where: str) -> tuple[Member, bytes]:
    """Return (member, type) of a header block. Raises UserError for a block that is no header."""
    try:
        if int(header[148:156].strip(b" \0"), 8) != sum(header) - sum(header[148:156]) + 8 * 32:
            raise ValueError("a wrong checksum")
        field = header[124:136]
        size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
        if size < 0:
            raise ValueError("a negative size")
    except ValueError as error:
        hint = "it is compressed: unpack it first (gunzip)" if header[:2] == b"\x1f\x8b" else "copy it again"
        raise UserError(f"{where} is no tar, or damaged at byte {offset} ({error}): {hint}.") from error
    name = header[:100].split(b"\0")[0]
    if header[257:262] == b"ustar" and header[257:265] != b"ustar  \0" and header[345]:
        name = header[345:500].split(b"\0")[0] + b"/" + name
    return Member(_text(name, where), offset + BLOCK, size), header[156:157]


def _pax(extension: bytes, name: str | None, size: int | None, where: str) -> tuple[str | None, int | None]:
    """Return the path and size of the next member: `name` and `size`, unless the pax header `extension` has others."""
    while extension:
        try:
            length = int(extension.split(b" ", 1)[0])
            key, _, value = extension[:length].split(b" ", 1)[1].rstrip(b"\n").partition(b"=")
            if key.startswith(b"GNU.sparse") or not 3 < length <= len(extension):
                raise ValueError(key)
            if key == b"path":
                name = _text(value, where)
            elif key == b"size":
                size = int(value)
                if size < 0:
                    raise ValueError(key)
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{where} has a header that is damaged or of no data set ({error}): copy or pack it again."
            ) from error
        extension = extension[length:]
    return name, size


def _text(name: bytes, where: str) -> str:
    """Return a name as text. Raises UserError if it is too long or not UTF-8."""
    if len(name) > MAX_NAME_BYTES:
        raise UserError(f"{where} has a name of {len(name)} bytes: this is not a data set's archive.")
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} has a name that is not UTF-8: {name[:100]!r}. Pack it anew.") from error


def zip_members(archive: zipfile.ZipFile, where: str) -> list[zipfile.ZipInfo]:
    """Return the files and folders of a zip, in their order in the zip. Raises UserError for a zip that is no data set's."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise UserError(f"{where} has more than {MAX_MEMBERS} members.")
    for member in members:
        check_name(member.filename, where)
        mode = member.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
            raise UserError(f"{where} holds a link or device ({member.filename!r}): only plain files are read. Pack it anew.")
        if member.flag_bits & 1:
            raise UserError(f"{where} is encrypted ({member.filename!r}). Pack it anew without a password.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{where} is packed in an unusual way ({member.filename!r}). Pack it anew, as usual.")
        if member.file_size > MAX_RATIO * max(member.compress_size, 1024):
            raise UserError(f"{where}: {member.filename!r} grows {MAX_RATIO}-fold or more: a zip bomb, not a data set's archive.")
    packed = os.path.getsize(where)
    if sum(member.file_size for member in members) > MAX_RATIO * packed or sum(m.compress_size for m in members) > packed:
        raise UserError(f"{where}: its members overlap or grow {MAX_RATIO}-fold: a zip bomb, not a data set's archive.")
    return members


def small_tar_gz(file: Path) -> dict[str, bytes]:
    """Return {name: content} of the files of a small compressed tar, such as ImageNet's development kit or CIFAR.

    The tar is unpacked in memory. Raises UserError if it is damaged or unpacks to more than MAX_SMALL_BYTES.
    """
    try:
        with open_regular(file) as packed, gzip.open(packed) as opened:
            content = opened.read(MAX_SMALL_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} is damaged: {error}. Copy it again.") from error
    if len(content) > MAX_SMALL_BYTES:
        raise UserError(f"{file} unpacks to more than {MAX_SMALL_BYTES} bytes: it is not what its name says.")

    def read(size: int, at: int) -> bytes:
        return content[at : at + size]

    members = list(members_within(read, 0, len(content), str(file)))
    return {member.name: read(member.size, member.offset) for member in members if not member.name.endswith("/")}
