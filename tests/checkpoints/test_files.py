"""Weight files: every bit comes back, other programs read ours and we read theirs, and a hostile file costs one line."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import fsspec
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT

from mixer_jax.checkpoints.files import local_copy, read_arrays, read_kinds, write_arrays
from mixer_jax.config import UserError

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(size=(5, 7)).astype(np.float32)
MEBIBYTE = 2**20

ARRAYS = {
    "stem/kernel": FLOATS,
    "longer than a piece": RNG.integers(0, 255, 2_500_000, np.uint8),
    "scalar": np.float64(-0.0),
    "of no items": np.zeros((0, 3), np.int16),
    "NaNs with payloads": np.array([0x7FC00001, 0xFF812345, 0x7F800001], np.uint32).view(np.float32),
    "half": FLOATS.astype(np.float16),
    "integers": np.array([-(2**63), 2**63 - 1]),
    "truth": FLOATS > 0,
    "complex": FLOATS.astype(np.complex64),
    "columns first": np.asfortranarray(FLOATS),
    "strided": FLOATS[::2, ::-3],
    "big-endian": FLOATS.astype(">f4"),
    "π": FLOATS.astype(">i8").T,
}
BFLOAT16 = {"bfloat16": FLOATS.astype(ml_dtypes.bfloat16)}
BY_SUFFIX = {".npz": ARRAYS, ".safetensors": ARRAYS | BFLOAT16}
METADATA = {"model": "mixer_b16", "z": 'a "quoted" line\n', "é": "PK\5\6", "empty": "", "1": "2"}


def assert_same_bits(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name in left:
        a, b = np.asarray(left[name]), np.asarray(right[name])
        assert (a.shape, a.dtype) == (b.shape, b.dtype.newbyteorder("=")), name
        assert a.tobytes() == b.astype(a.dtype).tobytes(), name


@pytest.mark.parametrize("metadata", [{}, METADATA], ids=["bare", "with_metadata"])
@pytest.mark.parametrize("suffix", BY_SUFFIX)
def test_what_is_written_comes_back_bit_for_bit(tmp_path: Path, suffix: str, metadata: dict):
    path = str(tmp_path / f"weights{suffix}")
    write_arrays(path, BY_SUFFIX[suffix], metadata)
    arrays, read_metadata = read_arrays(path)
    assert_same_bits(arrays, BY_SUFFIX[suffix])
    assert read_metadata == metadata
    assert read_kinds(path) == ({name: (x.dtype.name, x.shape) for name, x in arrays.items()}, metadata)
    assert [file.name for file in tmp_path.iterdir()] == [f"weights{suffix}"]
    (tmp_path / "other").touch()
    assert os.stat(path).st_mode == (tmp_path / "other").stat().st_mode  # as readable as any file of the user's


@pytest.mark.parametrize("suffix", BY_SUFFIX)
def test_the_same_content_gives_the_same_bytes(tmp_path: Path, suffix: str):
    files = [tmp_path / f"{number}{suffix}" for number in range(4)]
    for file in files[::2]:
        write_arrays(str(file), {"kernel": FLOATS, "bias": FLOATS[0]}, METADATA)
    for file in files[1::2]:
        write_arrays(str(file), {"bias": FLOATS[0], "kernel": np.asfortranarray(FLOATS)}, dict(reversed(METADATA.items())))
    assert len({file.read_bytes() for file in files}) == 1
    if suffix == ".npz":
        with zipfile.ZipFile(files[0]) as archive:
            assert {info.date_time[0] for info in archive.infolist()} == {1980}  # not the hour it was written in


def test_other_programs_read_what_is_written(tmp_path: Path):
    write_arrays(str(tmp_path / "weights.npz"), ARRAYS, METADATA)
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as file:
        assert_same_bits(dict(file), ARRAYS)
    write_arrays(str(tmp_path / "weights.safetensors"), ARRAYS | BFLOAT16, METADATA)
    assert_same_bits(safetensors.numpy.load_file(tmp_path / "weights.safetensors"), ARRAYS | BFLOAT16)
    with safetensors.safe_open(tmp_path / "weights.safetensors", framework="np") as file:
        assert file.metadata() == METADATA | {"format": "pt"}  # transformers and timm ask for the format


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path: Path, save: Callable):
    save(tmp_path / "weights.npz", **ARRAYS)
    assert_same_bits(read_arrays(str(tmp_path / "weights.npz"))[0], ARRAYS)
    assert read_arrays(str(tmp_path / "weights.npz"))[1] == {}


def test_what_the_safetensors_library_writes_is_read(tmp_path: Path):
    arrays = {name: np.ascontiguousarray(array) for name, array in (ARRAYS | BFLOAT16).items()}
    safetensors.numpy.save_file(arrays, tmp_path / "weights.safetensors")
    assert_same_bits(read_arrays(str(tmp_path / "weights.safetensors"))[0], arrays)


@pytest.mark.parametrize("comment", [b"made by hand", b"[1]", b'{"a": 1}', b"\xff", b"[" * 60_000], ids=range(5))
def test_a_comment_of_somebody_elses_is_passed_over(tmp_path: Path, comment: bytes):
    np.savez(tmp_path / "weights.npz", a=FLOATS)
    with zipfile.ZipFile(tmp_path / "weights.npz", "a") as archive:
        archive.comment = comment
    assert read_arrays(str(tmp_path / "weights.npz"))[1] == {}


def test_a_header_whose_length_begins_like_a_pickle_or_a_page_is_one(tmp_path: Path):
    for length in (0x0280, 0x3C):  # the bytes 80 02, and <
        header = json.dumps({"a": tensor((2,), 0, 8)}, separators=(",", ":")).encode().ljust(length)
        (tmp_path / "weights.safetensors").write_bytes(tensors(header, bytes(8), length))
        assert read_kinds(str(tmp_path / "weights.safetensors"))[0] == {"a": ("float32", (2,))}


UNWRITABLE = {
    "suffix": ("weights.pt", ARRAYS, {}, r"must end in \.npz or \.safetensors"),
    "folder": ("nowhere/weights.npz", ARRAYS, {}, "no folder .*nowhere. Create it first"),
    "existing": ("here.npz", ARRAYS, {}, "exists already. Delete it"),
    "bfloat16": ("weights.npz", BFLOAT16, {}, "bfloat16.*Write a .safetensors file"),
    "objects": ("weights.npz", {"a": np.array([None])}, {}, "'a' of dtype object"),
    "text": ("weights.safetensors", {"a": np.array(["b"])}, {}, "'a' of dtype str"),
    "record": ("weights.npz", {"a": np.zeros(1, "f4,f4")}, {}, "'a' of dtype void"),
    "complex128": ("weights.safetensors", {"a": np.zeros(1, complex)}, {}, "'a' of dtype complex128"),
    "metadata": ("weights.npz", ARRAYS, {"a": "b" * 70_000}, "70009 bytes of metadata, only 65535"),
    "name": ("weights.npz", {"a\0b": FLOATS}, {}, "cannot hold one of the names or texts"),
    "reserved": ("weights.safetensors", {"__metadata__": FLOATS}, {}, "cannot hold one of the names or texts"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_cannot_be_written_is_refused_and_leaves_nothing_behind(tmp_path: Path, name: str):
    file, arrays, metadata, reason = UNWRITABLE[name]
    (tmp_path / "here.npz").write_text("here")
    with pytest.raises(UserError, match=reason):
        write_arrays(str(tmp_path / file), arrays, metadata)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("here.npz", "here")]


def npy(descr: str, shape: str, data: bytes = b"", version: bytes = b"\1\0", length: int | None = None) -> bytes:
    """An entry that says of itself whatever it is told to."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", length or len(text)) + text + data


def entry(name: str, data: bytes, method: int = 0, crc: int | None = None, size: int | None = None, flags: int = 0) -> tuple:
    """`data` are the bytes as stored; `size` and `crc` are what the archive says of them."""
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
    """(raw deflate stream, CRC) of `start` and zeros, made of one piece over and over."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = compressor.compress(start) + compressor.flush(zlib.Z_FULL_FLUSH)
    stream += (compressor.compress(bytes(MEBIBYTE)) + compressor.flush(zlib.Z_FULL_FLUSH)) * mebibytes + b"\3\0"
    crc = zlib.crc32(start)
    for _ in range(mebibytes):
        crc = zlib.crc32(bytes(MEBIBYTE), crc)
    return stream, crc


def bomb(mebibytes: int, beside: int = 0, crc: int | None = None) -> bytes:
    """Zeros in the form of a sound .npz; `beside` as many bytes of another array."""
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
    """When unpickled, makes a file."""

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

HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {  # {name of the file: (its bytes, why it is refused)}
    "pickle.npz": (lambda canary: npz_of_one(npy("'|O'", "(1,)", pickle.dumps(Canary(canary)))), "pickled Python objects"),
    "pickle_in_a_record.npz": (lambda _: npz_of_one(npy("[('x', '|O')]", "(1,)", bytes(8))), "pickled Python objects"),
    "pickle.npy.npz": (lambda canary: npz_of_one(pickle.dumps(Canary(canary))), "magic string is not correct"),
    "pytorch.npz": (pytorch_zip, "PyTorch pickle, and loading one can run code. Convert it"),
    "pytorch.safetensors": (pytorch_zip, "PyTorch pickle"),
    "old_pytorch.npz": (lambda canary: pickle.dumps(Canary(canary), 2), "PyTorch pickle"),
    "new_pickle.safetensors": (lambda canary: pickle.dumps(Canary(canary), 4), "PyTorch pickle"),
    "ten_billion.npz": (lambda _: npz_of_one(npy("'<f4'", f"({10**10},)", bytes(40))), "in 1.. bytes"),
    "ten_billion_agreed.npz": (
        lambda _: archive(*(entry(f"{n}.npy", npy("'<f4'", f"({10**9},)", bytes(40)), size=4 * 10**9 + 54) for n in range(10))),
        "declares 40000000540 bytes.*bomb",
    ),
    "bomb.npz": (lambda _: bomb(300), "declares 314572940 bytes of arrays in a file of 311...: a decompression bomb.*np.savez"),
    "bomb_in_the_directory.npz": (lambda _: bomb_said_to_be_small(), "Bad CRC-32"),
    "bomb_of_the_size_allowed.npz": (lambda _: bomb(250, beside=10 * MEBIBYTE, crc=0), "Bad CRC-32"),
    "long_list.npz": (lambda _: b"PK\3\4" + bytes(5_000_000) + archive(directory_bytes=5_000_000), "list of arrays of 5000000"),
    "offset.npz": (lambda _: SOUND_NPZ[:-6] + b"\xff\xff\xff\0" + SOUND_NPZ[-2:], "damaged or cut short"),
    "long_header.npz": (lambda _: npz_of_one(npy("'<f4'", "(1,)", b" " * 60_000, length=60_000)), "length .60000. is large"),
    "endless_header.npz": (lambda _: npz_of_one(npy("'<f4'", "(1,)", version=b"\2\0", length=2**32 - 1)), "version of numpy's"),
    "deep_header.npz": (lambda _: npz_of_one(npy("(" * 9000, "(1,)")), "damaged or cut short"),
    "version.npz": (lambda _: npz_of_one(npy("'<f4'", "(1,)", bytes(4), version=b"\3\0")), "version of numpy's"),
    "record.npz": (lambda _: npz_of_one(npy("[('x', '<f4')]", "(1,)", bytes(4))), "not plain numbers"),
    "text.npz": (lambda _: npz_of_one(npy("'<U4'", "(1,)", bytes(16))), "not plain numbers"),
    "raw.npz": (lambda _: npz_of_one(npy("'|V2'", "(1,)", bytes(2))), r"V2, not plain numbers \(bfloat16 needs"),
    "dates.npz": (lambda _: npz_of_one(npy("'<M8[s]'", "(1,)", bytes(8))), "not plain numbers"),
    "negative.npz": (lambda _: npz_of_one(npy("'<f4'", "(-1, -2)", bytes(8))), "impossible shape"),
    "overflow.npz": (lambda _: npz_of_one(npy("'<f4'", f"({2**33}, {2**31}, {2**62})")), "impossible shape"),
    "overflow_of_nothing.npz": (lambda _: npz_of_one(npy("'<f4'", f"({2**62}, {2**62}, 0)")), "impossible shape"),
    "dimensions.npz": (lambda _: npz_of_one(npy("'<f4'", str((1,) * 65), bytes(4))), "impossible shape"),
    "too_long.npz": (lambda _: npz_of_one(npy("'<f4'", "(2,)", bytes(9))), r"shape \(2,\) and dtype float32 in"),
    "too_short.npz": (lambda _: npz_of_one(npy("'<f4'", "(2,)", bytes(7))), r"shape \(2,\) and dtype float32 in"),
    "missing_bytes.npz": (lambda _: npz_of_one(npy("'<f4'", "(2,)", bytes(4)), size=66), "damaged or cut short"),
    "short_stream.npz": (lambda _: short_stream(), "bytes are missing"),
    "twice.npz": (lambda _: archive(entry("a.npy", npy("'<f4'", "(0,)")), entry("a.npy", npy("'<f4'", "(0,)"))), "'a.npy' twice"),
    "other_zip.npz": (lambda _: archive(entry("readme\n\33[2J.txt", b"hello")), "holds 'readme..\\[2J.txt', not an array"),
    "encrypted.npz": (lambda _: npz_of_one(npy("'<f4'", "(0,)"), flags=1), "encrypted"),
    "lzma.npz": (lambda _: npz_of_one(npy("'<f4'", "(0,)"), method=zipfile.ZIP_LZMA), "compressed as numpy never does"),
    "crc.npz": (lambda _: npz_of_one(npy("'<f4'", "(50000,)", bytes(200_000)), crc=1), "Bad CRC-32.*Download or copy it again"),
    "crc_of_nothing.npz": (lambda _: npz_of_one(npy("'<f4'", "(0,)"), crc=1), "Bad CRC-32"),
    "garbage_after.npz": (lambda _: SOUND_NPZ + b"garbage", "goes on after its end"),
    "garbage_before.npz": (lambda _: b"garbage" + SOUND_NPZ, "neither an .npz nor"),
    "single.npz": (lambda _: npy("'<f4'", "(2,)", bytes(8)), "neither an .npz nor"),
    "page.npz": (lambda _: PAGE, "HTML or XML page, not weights: the download failed"),
    "page.safetensors": (lambda _: PAGE, "HTML or XML page, not weights: the download failed"),
    "pointer.npz": (lambda _: POINTER, "Git LFS pointer.*git lfs pull"),
    "empty.npz": (lambda _: b"", "is empty"),
    "empty.safetensors": (lambda _: b"", "is empty"),
    "zeros.safetensors": (lambda _: bytes(100), "neither an .npz nor"),
    "overlap.safetensors": (lambda _: tensors(TWO | {"b": tensor((2,), 4, 12)}, bytes(12)), "invalid offset"),
    "same_bytes.safetensors": (lambda _: tensors(TWO | {"b": tensor((2,), 0, 8)}, bytes(8)), "invalid offset"),
    "gap.safetensors": (lambda _: tensors(TWO | {"b": tensor((2,), 12, 20)}, bytes(20)), "invalid offset"),
    "backwards.safetensors": (lambda _: tensors({"a": tensor((2,), 8, 0)}, bytes(8)), "invalid offset"),
    "out_of_bounds.safetensors": (lambda _: tensors(TWO | {"b": tensor((200,), 8, 808)}, bytes(16)), "not fully covered"),
    "garbage_after.safetensors": (lambda _: SOUND_TENSORS + b"garbage", "not fully covered"),
    "other_size.safetensors": (lambda _: tensors({"a": tensor((3,), 0, 8)}, bytes(8)), "invalid shape, data type, or offset"),
    "negative.safetensors": (lambda _: tensors({"a": tensor((-2, -1), 0, 8)}, bytes(8)), "invalid JSON"),
    "overflow.safetensors": (lambda _: tensors({"a": tensor((2**32, 2**32), 0, 8)}, bytes(8)), "overflow"),
    "dimensions.safetensors": (lambda _: tensors({"a": tensor((1,) * 65, 0, 4)}, bytes(4)), "impossible shape"),
    "dtype.safetensors": (lambda _: tensors({"a": tensor((2,), 0, 8, "F33")}, bytes(8)), "unknown variant `F33`"),
    "float8.safetensors": (lambda _: tensors({"a": tensor((8,), 0, 8, "F8_E4M3")}, bytes(8)), "of dtype F8_E4M3; known are"),
    "twice.safetensors": (lambda _: tensors(ODD_JSON, bytes(8)), "'a' twice"),
    "json.safetensors": (lambda _: tensors(b'{"a": nonsense}'), "damaged or cut short"),
    "deep.safetensors": (lambda _: tensors(b'{"a":' + b"[" * MEBIBYTE), "damaged or cut short"),
    "metadata.safetensors": (lambda _: tensors({"__metadata__": {"a": 1}}), "invalid JSON"),
    "long_header.safetensors": (lambda _: tensors(b'{"a":', length=300 * MEBIBYTE), "declares a header of 314572800 bytes"),
    "endless_header.safetensors": (lambda _: tensors(TWO, bytes(16), length=2**60), "declares a header of 1152921504606846976"),
    "header_past_the_end.safetensors": (lambda _: tensors(TWO, length=10_000), "was cut short"),
} | {
    f"cut_{cut}{suffix}": (lambda _, sound=sound, cut=cut: sound[:cut], "cut short")
    for suffix, sound in ((".npz", SOUND_NPZ), (".safetensors", SOUND_TENSORS))
    for cut in (1, 6, 12, 60, len(sound) // 2, len(sound) - 30, len(sound) - 1)
}  # fmt: skip
SPARSE = {"long_header.safetensors": 300 * MEBIBYTE}  # filled up to so many bytes, which the disk does not hold
ONLY_IN_THE_DATA = {
    "bomb_in_the_directory.npz",
    "bomb_of_the_size_allowed.npz",
    "crc.npz",
    "missing_bytes.npz",
    "short_stream.npz",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """The folder of all the hostile files."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (build, _) in HOSTILE.items():
        with open(folder / name, "wb") as file:
            file.write(build(folder / "canary"))
            file.truncate(max(file.tell(), SPARSE.get(name, 0)))
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(hostile: Path, name: str):
    path = str(hostile / name)
    with pytest.raises(UserError) as refusal:
        read_arrays(path)
    assert re.fullmatch(f"{re.escape(path)} .*{HOSTILE[name][1]}.*\\.", str(refusal.value)), refusal.value  # . is no newline
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 700
    assert not (hostile / "canary").exists()


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - ONLY_IN_THE_DATA))
def test_headers_alone_are_read_with_the_same_checks(hostile: Path, name: str):
    with pytest.raises(UserError, match=HOSTILE[name][1]):
        read_kinds(str(hostile / name))


def test_the_canary_sings_for_a_reader_that_unpickles(hostile: Path):
    with np.load(hostile / "pickle.npz", allow_pickle=True) as file:
        file["a"]
    assert (hostile / "canary").exists()
    (hostile / "canary").unlink()


MEASURE = """
import json, os, sys
import numpy as np
from mixer_jax.checkpoints.files import read_arrays

def naive(path):
    with np.load(path) as file:
        return dict(file)

def peaks():  # of memory held and of addresses taken, which counts memory that was asked for and not touched
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(lines[key].split()[0]) * 1024 for key in ("VmHWM", "VmPeak")]

read = {"ours": read_arrays, "naive": naive}[sys.argv[1]]
for path in sys.argv[2:]:
    if os.fork() == 0:  # each file in a process of its own, whose peaks begin at what is held now
        before = peaks()
        try:
            read(path)
        except Exception as error:
            pass
        print(json.dumps([os.path.basename(path), max(b - a for a, b in zip(before, peaks()))]), flush=True)
        os._exit(0)
    os.wait()
"""


def peak_bytes(reader: str, files: list[Path]) -> dict[str, int]:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, reader, *map(str, files)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return dict(map(json.loads, run.stdout.splitlines()))


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's peaks are read from /proc")


@needs_proc
def test_a_hostile_file_costs_little_more_memory_than_its_length(hostile: Path):
    peaks = peak_bytes("ours", [hostile / name for name in HOSTILE])
    assert peaks.keys() == HOSTILE.keys()
    allowed = {name: 2 * (hostile / name).stat().st_size + 200 * MEBIBYTE for name in HOSTILE}
    assert not {name: (peaks[name], allowed[name]) for name in HOSTILE if peaks[name] > allowed[name]}


@needs_proc
def test_a_sound_file_is_in_memory_once(tmp_path: Path):
    size = 256 * MEBIBYTE
    (tmp_path / "weights.safetensors").write_bytes(tensors({"a": tensor((size // 4,), 0, size)}))
    with open(tmp_path / "weights.safetensors", "ab") as file:
        file.truncate(file.tell() + size)
    assert size <= peak_bytes("ours", [tmp_path / "weights.safetensors"])["weights.safetensors"] < 1.5 * size


@needs_proc
def test_the_measurement_sees_a_reader_that_trusts_a_header(hostile: Path):
    file = hostile / "bomb.npz"
    assert peak_bytes("naive", [file])["bomb.npz"] > 2 * file.stat().st_size + 200 * MEBIBYTE


@pytest.mark.parametrize("name", ["stored.npz", "compressed.npz", "weights.safetensors"])
def test_damage_of_any_kind_gives_arrays_or_one_line(tmp_path: Path, name: str):
    file = tmp_path / name
    small = {"a": FLOATS, "b": np.zeros((0, 2), np.int8)}
    np.savez_compressed(file, **small) if name == "compressed.npz" else write_arrays(str(file), small, METADATA)
    sound = file.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged, place = bytearray(sound), rng.integers(len(sound))
        match rng.integers(4):
            case 0:
                damaged[place] ^= 1 << rng.integers(8)
            case 1:
                damaged[place : place + rng.integers(1, 9)] = rng.bytes(rng.integers(9))
            case 2:
                damaged[place : place + 4] = b"\xff" * 4
            case 3:
                del damaged[place:]
        file.write_bytes(damaged)
        try:
            arrays, _ = read_arrays(str(file))
        except UserError as error:
            assert str(error).isprintable()  # and so one line
        else:
            assert name == "weights.safetensors" or all(small[key].tobytes() == arrays[key].tobytes() for key in arrays)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"weights\.npz does not exist\.$"):
        read_arrays(str(tmp_path / "weights.npz"))
    with pytest.raises(UserError, match="IsADirectoryError"):
        read_kinds(str(tmp_path))


def test_a_local_path_is_its_own_copy(tmp_path: Path):
    with local_copy(str(tmp_path / "weights.npz")) as local:
        assert local == str(tmp_path / "weights.npz")


def test_a_remote_file_is_there_while_it_is_needed(capfd):
    with fsspec.open("memory://released/weights.npz", "wb") as file:
        file.write(SOUND_NPZ)
    with local_copy("memory://released/weights.npz") as local:
        assert Path(local).name == "weights.npz"
        assert read_kinds(local)[0] == {"a": ("float32", (1000,)), "b": ("float32", (1000,))}
    assert not Path(local).exists()
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


def test_an_error_while_a_copy_is_used_stays_what_it_is():
    with fsspec.open("memory://released/weights.npz", "wb") as file:
        file.write(SOUND_NPZ)
    with pytest.raises(FileNotFoundError, match="of the caller"), local_copy("memory://released/weights.npz"):
        raise FileNotFoundError("of the caller")


UNREACHABLE = {
    "memory://released/none.npz": "^memory://released/none.npz does not exist",
    "gs://bucket/weights.npz": "^gs://bucket/weights.npz .*`pip install gcsfs`",
    "floppy://a/weights.npz": "^floppy://a/weights.npz cannot be downloaded.*Protocol not known",
}


@pytest.mark.parametrize("url", UNREACHABLE)
def test_what_cannot_be_fetched_is_refused_with_what_to_install(monkeypatch, url: str):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(UserError, match=UNREACHABLE[url]), local_copy(url):
        pass
