"""The content of a tar or zip is listed, a hostile or damaged one is refused, and nothing is ever written."""

import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from preparation import miniature

from mixer_jax.errors import UserError
from mixer_jax.preparation import archives
from mixer_jax.preparation.archives import nested_tar_members, tar_members, zip_members
from mixer_jax.preparation.files import TarFiles, ZipFiles

LONG = "a/" * 60 + "x" * 150 + ".jpg"  # It is longer than the field of a header.


def tar_of(file: Path, *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return file


def info(name: str = "a.jpg", **fields) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def contents(files) -> dict[str, bytes]:
    return {files.names[number]: data for number, data in files.read(range(len(files.names)))}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_a_tar_are_read_by_place_in_every_common_format(tmp_path, form):
    images = {"n1/a.jpg": miniature.jpeg(0), "n1/b.jpg": b"", "./n2/ä.jpg": bytes(1000)}
    images |= {} if form == tarfile.USTAR_FORMAT else {LONG: b"long"}
    files = TarFiles()
    tar = miniature.make_tar(tmp_path / "x.tar", images, form)
    files.add_images(tar, tar_members(tar))
    assert contents(files) == {name.removeprefix("./"): content for name, content in images.items()}


def test_a_split_ustar_name_is_put_together(tmp_path):
    name = "/".join(["directory"] * 12) + "/image.jpg"
    assert len(name) > 100
    tar = miniature.make_tar(tmp_path / "x.tar", {name: b"1"}, tarfile.USTAR_FORMAT)
    assert [member.name for member in tar_members(tar)] == [name]


def test_members_of_tars_in_a_tar_are_read_from_the_outer_one(tmp_path):
    images = miniature.train_images()
    files = TarFiles()
    tar = miniature.make_tar_of_tars(tmp_path / "train.tar", images)
    files.add_images(tar, nested_tar_members(tar))
    assert contents(files) == images


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_a_zip_are_read_without_unpacking_the_rest(tmp_path, compression):
    images = miniature.train_images()
    file = miniature.make_zip(
        tmp_path / "x.zip", {"all/" + name: data for name, data in images.items()} | {"README": b""}, compression
    )
    files = ZipFiles(file, "all/")
    assert contents(files) == {"all/" + name: data for name, data in images.items()}
    assert files.tree.left_out == {"outside all/": 1}


LEADING_OUT = ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "C:/a.jpg", "..\\a.jpg", "a/..", "a\n.jpg"]


@pytest.mark.parametrize("name", LEADING_OUT)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_tar_whose_names_lead_out_is_refused(tmp_path, name, kind):
    tar = tar_of(tmp_path / "x.tar", info(name, type=tarfile.REGTYPE if kind == "file" else tarfile.DIRTYPE))
    with pytest.raises(UserError, match="leads out of its folder"):
        list(tar_members(tar))
    assert list(tmp_path.iterdir()) == [tar]


@pytest.mark.parametrize("name", [*LEADING_OUT[:4], "a/.."])
def test_a_zip_whose_names_lead_out_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="leads out of its folder"):
        ZipFiles(miniature.make_zip(tmp_path / "x.zip", {name: b""}), "")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (info(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "symbolic link"),
        (info(type=tarfile.LNKTYPE, linkname="b.jpg"), "hard link"),
        (info(type=tarfile.CHRTYPE), "device"),
        (info(type=tarfile.BLKTYPE), "device"),
        (info(type=tarfile.FIFOTYPE), "pipe"),
        (info(type=tarfile.GNUTYPE_SPARSE), "special member"),
    ],
)
def test_a_tar_with_anything_but_files_is_refused(tmp_path, member, message):
    with pytest.raises(UserError, match=message):
        list(tar_members(tar_of(tmp_path / "x.tar", member)))


def test_the_same_inside_a_tar_in_a_tar_is_refused(tmp_path):
    inner = tar_of(tmp_path / "n1.tar", info(type=tarfile.SYMTYPE, linkname="/etc/passwd")).read_bytes()
    with pytest.raises(UserError, match=r"n1\.tar.*symbolic link"):
        list(nested_tar_members(miniature.make_tar(tmp_path / "x.tar", {"n1.tar": inner})))


def header(size: int = 0, kind: bytes = b"0", name: bytes = b"a.jpg") -> bytes:
    """Return a header block with any content and the right checksum."""
    field = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" * 3 + field + b"0" * 12 + b" " * 8 + kind)
    block = block.ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records: bytes) -> bytes:
    body = b"".join(records)
    return header(len(body), b"x") + body.ljust(-(-len(body) // 512) * 512, b"\0")


END = bytes(1024)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends too soon"),
        (header(10) + bytes(512), "ends too soon"),
        (header(10**6) + bytes(512), "ends within 'a.jpg' of 1000000 bytes"),
        (header(2**80) + END, "ends within"),
        (header(10**9, b"L") + END, "header of 1000000000 bytes"),
        (header(10**9, b"x") + END, "header of 1000000000 bytes"),
        (header(5000, b"L") + b"a" * 5000 + bytes(120) + header() + END, "name of 5000 bytes"),
        (pax(b"27 path=../../etc/passwd  \n") + header() + END, "leads out"),
        (pax(b"99 path=x\n") + header() + END, "damaged or of no data set"),
        (pax(b"0 path=x\n") + header() + END, "damaged or of no data set"),
        (pax(b"-9 path=x\n") + header() + END, "damaged or of no data set"),
        (pax(b"11 size=-1\n") + header() + END, "damaged or of no data set"),
        (pax(b"22 GNU.sparse.major=1\n") + header() + END, "damaged or of no data set"),
        (pax(b"20 size=99999999999\n") + header() + END, "ends within"),
        (header(name=b"\xff\xfe.jpg") + END, "not UTF-8"),
        (b"\x1f\x8b" + bytes(2000), "it is compressed: unpack it first"),
        (miniature.jpeg(0, 64, 64), "no tar, or damaged at byte 0"),
        (bytes(100) + b"1" * 412 + END, "no tar"),
    ],
)
def test_a_damaged_or_lying_tar_is_refused_in_words(tmp_path, content, message):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(tar_members(tmp_path / "x.tar"))


def test_a_tar_cut_anywhere_is_refused(tmp_path):
    whole = miniature.tar_bytes({"n/a.jpg": bytes(700), "n/b.jpg": bytes(100)})
    end = 512 + 1024 + 512 + 512  # The last member ends here. Zeros follow it.
    for length in range(0, end + 1, 64):
        (tmp_path / "x.tar").write_bytes(whole[:length])
        with pytest.raises(UserError, match="ends"):
            list(tar_members(tmp_path / "x.tar"))


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    names = {f"{number}.jpg": b"" for number in range(4)}
    with pytest.raises(UserError, match="more than 3 members"):
        list(tar_members(miniature.make_tar(tmp_path / "x.tar", names)))
    with pytest.raises(UserError, match="more than 3 members"):
        ZipFiles(miniature.make_zip(tmp_path / "x.zip", names), "")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with pytest.raises(UserError, match="zip bomb"):
        ZipFiles(miniature.make_zip(tmp_path / "x.zip", {"a.jpg": bytes(10**7)}), "")


def test_many_small_zip_bombs_are_one(tmp_path):
    bombs = {f"{number}.jpg": bytes(90_000) for number in range(300)}
    with pytest.raises(UserError, match="zip bomb"):
        ZipFiles(miniature.make_zip(tmp_path / "x.zip", bombs), "")


def test_zip_members_that_share_their_bytes_are_refused(tmp_path):
    file = miniature.make_zip(tmp_path / "x.zip", {"a.jpg": bytes(range(256)) * 40}, zipfile.ZIP_STORED)
    with zipfile.ZipFile(file) as archive:
        archive.filelist *= 20
        with pytest.raises(UserError, match="overlap"):
            zip_members(archive, str(file))


def test_a_zip_with_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("a.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="link or device"):
        ZipFiles(tmp_path / "x.zip", "")


def test_an_encrypted_zip_is_refused(tmp_path):
    file = miniature.make_zip(tmp_path / "x.zip", {"a.jpg": b"1"}, zipfile.ZIP_STORED)
    content = bytearray(file.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        ZipFiles(file, "")


def test_a_damaged_zip_is_named_with_its_member(tmp_path):
    file = miniature.make_zip(tmp_path / "x.zip", {"a.jpg": b"abcdef" * 10}, zipfile.ZIP_STORED)
    content = bytearray(file.read_bytes())
    content[content.index(b"abcdef")] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged at a\.jpg"):
        contents(ZipFiles(file, ""))
    file.write_bytes(content[:-10])
    with pytest.raises(UserError, match="no zip, or ends too soon"):
        ZipFiles(file, "")


def test_a_zip_member_that_lies_about_its_size_gives_no_more_than_it_says(tmp_path):
    file = miniature.make_zip(tmp_path / "x.zip", {"a.jpg": bytes(50_000)})
    content = bytearray(file.read_bytes())
    place = content.index(b"PK\x01\x02") + 24
    assert struct.unpack_from("<I", content, place) == (50_000,)
    struct.pack_into("<I", content, place, 10)
    file.write_bytes(content)
    try:
        assert all(len(data) <= 10 for data in contents(ZipFiles(file, "")).values())
    except UserError as error:
        assert "damaged" in str(error)


def test_no_damage_to_a_tar_or_zip_does_more_than_a_refusal(tmp_path):
    rng = random.Random(0)
    images = {"n1/a.jpg": miniature.jpeg(0), LONG: b"long", "n2/b.jpg": miniature.png(1)}
    tars = [miniature.tar_bytes(images, form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    zipped = miniature.make_zip(tmp_path / "whole.zip", images).read_bytes()
    file = tmp_path / "x"
    for trial in range(600):
        content = bytearray((tars[0].rstrip(b"\0") + END, tars[1].rstrip(b"\0") + END, zipped)[trial % 3])
        for _ in range(rng.choice((1, 3, 30))):
            content[rng.randrange(len(content))] = rng.choice((0, 255, 48, 55, rng.randrange(256)))
        if trial % 3 < 2:
            # The checksums of headers are made right, so that the damage is read.
            for place in range(0, len(content) - 511, 512):
                if content[place + 257 : place + 262] == b"ustar":
                    content[place + 148 : place + 156] = b" " * 8
                    content[place + 148 : place + 156] = b"%06o\0 " % sum(content[place : place + 512])
        file.write_bytes(content)
        try:
            if trial % 3 == 2:
                contents(ZipFiles(file, ""))
            else:
                assert all(member.offset + member.size <= len(content) for member in tar_members(file))
        except UserError:
            pass
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["whole.zip", "x"]
