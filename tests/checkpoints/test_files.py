"""Tests of weight files: no bit changes, other programs and we read each other's files, and errors have one line."""

import errno
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from checkpoints.lying_files import SOUND_NPZ, tensor, tensors

from mixer_jax.checkpoints import files, npz
from mixer_jax.checkpoints.files import local_copy, read_arrays, read_signatures, write_arrays
from mixer_jax.errors import EnvironmentFault, UserError

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
    assert read_signatures(path) == ({name: (x.dtype.name, x.shape) for name, x in arrays.items()}, metadata)
    assert [file.name for file in tmp_path.iterdir()] == [f"weights{suffix}"]
    (tmp_path / "other").touch()
    assert os.stat(path).st_mode == (tmp_path / "other").stat().st_mode  # It has the access rights of any other file.


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
            assert {info.date_time[0] for info in archive.infolist()} == {1980}  # The time of writing is not stored.


def test_other_programs_read_what_is_written(tmp_path: Path):
    write_arrays(str(tmp_path / "weights.npz"), ARRAYS, METADATA)
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as file:
        assert_same_bits(dict(file), ARRAYS)
    write_arrays(str(tmp_path / "weights.safetensors"), ARRAYS | BFLOAT16, METADATA)
    assert_same_bits(safetensors.numpy.load_file(tmp_path / "weights.safetensors"), ARRAYS | BFLOAT16)
    with safetensors.safe_open(tmp_path / "weights.safetensors", framework="np") as file:
        assert file.metadata() == METADATA | {"format": "pt"}  # transformers and timm require the entry "format".


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
    for length in (0x0280, 0x3C):  # A pickle begins with the bytes 80 02, and a page with "<".
        header = json.dumps({"a": tensor((2,), 0, 8)}, separators=(",", ":")).encode().ljust(length)
        (tmp_path / "weights.safetensors").write_bytes(tensors(header, bytes(8), length))
        assert read_signatures(str(tmp_path / "weights.safetensors"))[0] == {"a": ("float32", (2,))}


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


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"weights\.npz does not exist\.$"):
        read_arrays(str(tmp_path / "weights.npz"))
    with pytest.raises(UserError, match="no ordinary file"):
        read_signatures(str(tmp_path))


def test_a_local_path_is_its_own_copy(tmp_path: Path):
    with local_copy(str(tmp_path / "weights.npz")) as local:
        assert local == str(tmp_path / "weights.npz")


def test_a_remote_file_is_there_while_it_is_needed(capfd):
    with fsspec.open("memory://released/weights.npz", "wb") as file:
        file.write(SOUND_NPZ)
    with local_copy("memory://released/weights.npz") as local:
        assert Path(local).name == "weights.npz"
        assert read_signatures(local)[0] == {"a": ("float32", (1000,)), "b": ("float32", (1000,))}
    assert not Path(local).exists()
    assert capfd.readouterr() == ("", "")  # Without a terminal there is no progress bar.


def test_an_error_while_a_copy_is_used_stays_what_it_is():
    with fsspec.open("memory://released/weights.npz", "wb") as file:
        file.write(SOUND_NPZ)
    with pytest.raises(FileNotFoundError, match="of the caller"), local_copy("memory://released/weights.npz"):
        raise FileNotFoundError("of the caller")


UNREACHABLE = {
    "memory://released/none.npz": "^memory://released/none.npz does not exist",
    "s3://bucket/weights.npz": "^s3://bucket/weights.npz .*`pip install s3fs`",
    "floppy://a/weights.npz": "^floppy://a/weights.npz cannot be downloaded.*Protocol not known",
}


@pytest.mark.parametrize("url", UNREACHABLE)
def test_what_cannot_be_fetched_is_refused_with_what_to_install(monkeypatch, url: str):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # This acts as if s3fs were not installed.
    with pytest.raises(UserError, match=UNREACHABLE[url]), local_copy(url):
        pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), EnvironmentFault),
        (safetensors.SafetensorError("I/O error: No space left on device (os error 28)"), EnvironmentFault),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), EnvironmentFault),
        (PermissionError(errno.EACCES, "Permission denied"), UserError),
        (safetensors.SafetensorError("I/O error: Permission denied (os error 13)"), UserError),
    ],
)
def test_a_full_disk_or_a_lost_connection_is_no_mistake(tmp_path, monkeypatch, error, kind):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(npz, "write_npz", fail)
    monkeypatch.setattr(files.fsspec.core, "url_to_fs", fail)
    with pytest.raises(kind, match=r"weights\.npz cannot be written"):
        write_arrays(str(tmp_path / "weights.npz"), ARRAYS, METADATA)
    with pytest.raises(kind, match=r"memory://weights\.npz cannot be downloaded"), local_copy("memory://weights.npz"):
        pass
    assert not list(tmp_path.iterdir())
