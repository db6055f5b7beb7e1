"""Whatever keeps one file from being read makes it an unreadable image; a disk that is gone is none of the image's."""

import errno
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from data.sources.shades import pixels
from data.unreadable_images import file_of
from preparation.preparing import make
from tiny_config import loader_config

from mixer_jax import endings
from mixer_jax.config import dataset
from mixer_jax.data.images.decode import UnavailableImageError, UnreadableImageError
from mixer_jax.data.sources.image_files import as_os_error, read_image
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.data.stream.unreadable import read_or_substitute
from mixer_jax.errors import LOST_DISK, EnvironmentFault, UserError
from mixer_jax.storage import open_regular

# What becomes of a file, and the reason that is told. Permissions and the disk fail by stand-ins of the calls that ask them: root
# may read whatever chmod says, and no file of a sound disk has a bad sector.
FAULTS = {
    "a link to nowhere": (lambda file: file.symlink_to("nowhere"), "No such file or directory"),
    "a link to itself": (lambda file: file.symlink_to(file.name), "Too many levels of symbolic links"),
    "a link through a file": (lambda file: file.symlink_to("/dev/null/x"), "Not a directory"),
    "a link to a folder": (lambda file: file.symlink_to("/dev"), "is no ordinary file"),
    "a pipe": (os.mkfifo, "is no ordinary file"),
    "a bad sector": (None, "Input/output error"),
    "gone since it was listed": (lambda file: None, "No such file or directory"),
    "a folder since it was listed": (Path.mkdir, "is no ordinary file"),
    "nobody may read it": (None, "Permission denied"),
}
LISTED = [fault for fault in FAULTS if "since" not in fault and "folder" not in fault]
LOADER = loader_config()


@pytest.fixture
def fail_to(monkeypatch):
    """Return a function that makes opening or reading one file fail with an error number, as the disk or its rights would."""

    def fail_to(call: str, file: Path, number: int) -> None:
        opened = os.open

        def open_or_fail(path, *arguments, **options):
            if call == "open" and Path(path) == file:
                raise OSError(number, os.strerror(number), str(path))
            return opened(path, *arguments, **options)

        class Unreadable(io.FileIO):
            def readinto(self, buffer, /):
                raise OSError(number, os.strerror(number))

        def open_unreadable(path):
            return io.BufferedReader(Unreadable(path)) if call == "read" and Path(path) == file else open_regular(path)

        monkeypatch.setattr("mixer_jax.storage.os.open", open_or_fail)
        monkeypatch.setattr("mixer_jax.storage.open_regular", open_unreadable)

    return fail_to


@pytest.fixture
def spoil(fail_to):
    """Return a function that makes a file unreadable in one of the ways of FAULTS."""

    def spoil(file: Path, fault: str) -> str:
        make_fault, reason = FAULTS[fault]
        if make_fault:
            file.unlink()
            make_fault(file)
        else:
            fail_to(*(("read", file, errno.EIO) if fault == "a bad sector" else ("open", file, errno.EACCES)))
        return reason

    return spoil


def write_folder(root: Path) -> Path:
    """Return the second of six images of two classes."""
    for name in ("ant/0.png", "ant/1.png", "ant/2.png", "bee/0.png", "bee/1.png", "bee/2.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(file_of(pixels(len(list(root.rglob("*.png")))), "PNG"))
    return root / "ant/1.png"


@pytest.mark.parametrize("fault", FAULTS)
def test_training_substitutes_it_and_evaluation_names_it(tmp_path, spoil, fault):
    file = write_folder(tmp_path)
    source = open_source(dataset(f"folder:{tmp_path}", ""))
    reason = spoil(file, fault)
    used, _, unreadable = read_or_substitute(source, 2**20, seed=0, epoch=0, record=1)
    assert used != 1 and len(unreadable) >= 1
    assert re.fullmatch(rf"record 1, {file}, is not read \(.*{reason}.*\)", unreadable[0].message)
    kind, code = (EnvironmentFault, endings.TRY_AGAIN) if fault == "a bad sector" else (UserError, endings.TO_MEND)
    with pytest.raises(kind, match=rf"^{file} is not read \(.*{reason}.*\)\. (Mend or remove it|See to the disk)") as error:
        list(eval_batches(source, lambda image, rng: image, LOADER, batch_size=6, batch_indices=np.arange(6)))
    assert endings.ending(error.value).code == code


@pytest.mark.parametrize("fault", LISTED)
def test_prepare_lists_it_and_can_leave_it_out(tmp_path, spoil, fault):
    reason = spoil(write_folder(tmp_path / "from"), fault)
    source = f"folder:{tmp_path / 'from'}"
    with pytest.raises(UserError, match=rf"1 images cannot be read:\n  ant/1\.png: not read \(.*{reason}"):
        make(source, tmp_path / "to")
    assert "ant/1.png" not in make(source, tmp_path / "to", skip_unreadable=True)


@pytest.mark.parametrize("number", LOST_DISK, ids=errno.errorcode.get)
def test_a_disk_that_is_gone_is_the_environments_fault(tmp_path, monkeypatch, number):
    write_folder(tmp_path)
    source = open_source(dataset(f"folder:{tmp_path}", ""))

    def fail(path, *_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("mixer_jax.storage.os.open", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        read_or_substitute(source, 2**20, seed=0, epoch=0, record=1)
    ending = endings.ending(error.value)
    assert ending.code == endings.TRY_AGAIN and str(tmp_path) in ending.message


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, EnvironmentFault), (errno.ENOENT, UserError)])
def test_where_no_image_can_be_read_the_fault_is_the_disks_or_the_datas(tmp_path, monkeypatch, number, kind):
    write_folder(tmp_path)
    source = open_source(dataset(f"folder:{tmp_path}", ""))

    def fail(path, *_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("mixer_jax.storage.os.open", fail)
    with pytest.raises(kind, match="100 records that were to take the place of record 1 cannot be read either"):
        read_or_substitute(source, 2**20, seed=0, epoch=0, record=1)


def test_a_folder_that_cannot_be_listed_is_no_class_without_images(tmp_path, monkeypatch):
    write_folder(tmp_path)
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "bee":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PermissionError) as error:
        open_source(dataset(f"folder:{tmp_path}", ""))
    assert endings.ending(error.value) == (endings.TO_MEND, f"error: Permission denied: {tmp_path}/bee", True)


def test_an_error_of_the_disk_that_arrayrecord_tells_is_that_error():
    text = "{}() failed: {}; reading /x/train-00000-of-00001.array_record; at byte 1802; Could not read from the reader"
    for number in (*LOST_DISK, errno.EIO, errno.ENOSPC, errno.ENOENT):
        with pytest.raises(OSError, match=os.strerror(number)) as error, as_os_error("/x"):
            raise RuntimeError(text.format("pread", os.strerror(number)))
        assert (error.value.errno, error.value.filename) == (number, "/x")
    with pytest.raises(RuntimeError, match="checksum"), as_os_error("/x"):
        raise RuntimeError("Corrupted chunk: checksum does not match; reading /x")


def test_only_what_the_disk_may_give_later_is_unavailable(tmp_path, fail_to):
    file = write_folder(tmp_path)
    fail_to("read", file, errno.EIO)
    with pytest.raises(UnavailableImageError):
        read_image(file)
    with pytest.raises(UnreadableImageError) as error:
        read_image(Path("/nowhere/x.png"))
    assert not isinstance(error.value, UnavailableImageError)
