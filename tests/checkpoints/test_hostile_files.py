"""Tests of malicious files: each is refused in one line, runs no code, and takes no memory because of what it declares."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints.lying_files import (
    MEBIBYTE,
    ODD_JSON,
    PAGE,
    POINTER,
    SOUND_NPZ,
    SOUND_TENSORS,
    TWO,
    Canary,
    archive,
    bomb,
    bomb_said_to_be_small,
    entry,
    npy,
    npz_of_one,
    pytorch_zip,
    short_stream,
    tensor,
    tensors,
)
from hostile.costs import costs

from mixer_jax.checkpoints.files import read_arrays, read_signatures, write_arrays
from mixer_jax.errors import UserError

# {name of a file: (a function that returns its bytes, the reason in the message)}
HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
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
SPARSE = {"long_header.safetensors": 300 * MEBIBYTE}  # {name of a sparse file: its length}
ONLY_IN_THE_DATA = {
    "bomb_in_the_directory.npz",
    "bomb_of_the_size_allowed.npz",
    "crc.npz",
    "missing_bytes.npz",
    "short_stream.npz",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """Return the folder of all malicious files."""
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
    # "." does not match a newline, so the message has one line.
    assert re.fullmatch(f"{re.escape(path)} .*{HOSTILE[name][1]}.*\\.", str(refusal.value)), refusal.value
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 700
    assert not (hostile / "canary").exists()


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - ONLY_IN_THE_DATA))
def test_headers_alone_are_read_with_the_same_checks(hostile: Path, name: str):
    with pytest.raises(UserError, match=HOSTILE[name][1]):
        read_signatures(str(hostile / name))


def test_the_canary_sings_for_a_reader_that_unpickles(hostile: Path):
    with np.load(hostile / "pickle.npz", allow_pickle=True) as file:
        file["a"]
    assert (hostile / "canary").exists()
    (hostile / "canary").unlink()


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's peaks are read from /proc")


@needs_proc
def test_a_hostile_file_costs_little_more_memory_than_its_length_and_little_time(hostile: Path):
    found = costs(("weights", hostile / name) for name in HOSTILE)
    faults = {}
    for name in HOSTILE:
        cost, size = found[str(hostile / name)], (hostile / name).stat().st_size / MEBIBYTE
        if max(cost.mebibytes, cost.address_mebibytes) > 2 * size + 200 or cost.seconds > 4:
            faults[name] = cost
    assert not faults


@needs_proc
def test_a_sound_file_is_in_memory_once(tmp_path: Path):
    size = 256
    file = tmp_path / "weights.safetensors"
    file.write_bytes(tensors({"a": tensor((size * MEBIBYTE // 4,), 0, size * MEBIBYTE)}))
    os.truncate(file, file.stat().st_size + size * MEBIBYTE)
    cost = costs([("weights", file)])[str(file)]
    assert size <= max(cost.mebibytes, cost.address_mebibytes) < 1.5 * size


@needs_proc
def test_the_measurement_sees_a_reader_that_trusts_a_header(hostile: Path):
    file = hostile / "bomb.npz"
    assert costs([("trusted_weights", file)])[str(file)].mebibytes > 2 * file.stat().st_size / MEBIBYTE + 200


@pytest.mark.parametrize("name", ["stored.npz", "compressed.npz", "weights.safetensors"])
def test_damage_of_any_kind_gives_arrays_or_one_line(tmp_path: Path, name: str):
    file = tmp_path / name
    small = {"a": np.arange(35, dtype=np.float32).reshape(5, 7), "b": np.zeros((0, 2), np.int8)}
    np.savez_compressed(file, **small) if name == "compressed.npz" else write_arrays(str(file), small, {"model": "mixer_b16"})
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
            assert str(error).isprintable()  # A printable text has one line.
        else:
            assert name == "weights.safetensors" or all(small[key].tobytes() == arrays[key].tobytes() for key in arrays)
