"""A folder and a bucket are the same storage: what holds for the one holds for the other."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixer_jax.bucket import NEVER_WRITTEN
from mixer_jax.errors import UserError
from mixer_jax.storage import Storage, open_storage

CONTENDERS, RENEWALS = 16, 5


@pytest.fixture(params=["folder", "bucket"])
def storage(request, tmp_path, cloud) -> Storage:
    return open_storage(str(tmp_path / "run") if request.param == "folder" else "gs://bucket/run")


def test_what_is_written_is_read_listed_and_deleted(storage):
    assert (storage.read_written("a/b"), storage.generation("a/b"), storage.names()) == (None, None, [])
    assert storage.read_whole("a/b", 10) is None and storage.read_whole("a/b/c", 10) is None
    storage.write("a/b", b"1")
    storage.write("a/b", b"2")
    storage.write("c", b"")
    assert (storage.read_whole("a/b", 1), storage.names()) == (b"2", ["a/b", "c"])
    storage.delete("a/b")
    storage.delete("a/b")
    assert (storage.read_whole("a/b", 1), storage.names()) == (None, ["c"])


def test_a_value_that_is_too_large_is_refused(storage):
    storage.write("a", b"12")
    assert storage.read_whole("a", 2) == b"12"
    with pytest.raises(UserError, match="bytes"):
        storage.read_whole("a", 1)


def test_a_condition_holds_until_somebody_writes(storage):
    first = storage.write_if_unchanged("x", b"1")
    assert storage.write_if_unchanged("x", b"2") is None
    second = storage.write_if_unchanged("x", b"3", first)
    assert storage.generation("x") == second
    assert storage.write_if_unchanged("x", b"4", first) is None
    storage.delete("x", first)
    assert storage.read_written("x") == (b"3", second) and first != second
    storage.write("x", b"3")
    assert storage.write_if_unchanged("x", b"4", second) is None
    storage.delete("x", storage.generation("x"))
    assert storage.read_written("x") is None
    assert storage.write_if_unchanged("x", b"5", second) is None
    assert storage.write_if_unchanged("x", b"6", NEVER_WRITTEN) and storage.names() == ["x"]


def test_of_many_writes_with_one_condition_one_takes_effect(storage):
    """The contenders replace the value several times, each time all with the same condition."""
    generation = NEVER_WRITTEN
    with ThreadPoolExecutor(CONTENDERS) as threads:
        for renewal in range(RENEWALS):
            values = [f"{renewal}/{contender}".encode() for contender in range(CONTENDERS)]
            answers = list(threads.map(lambda value, old=generation: storage.write_if_unchanged("x", value, old), values))
            assert sum(answer is not None for answer in answers) == 1
            winner = next(value for value, answer in zip(values, answers, strict=True) if answer)
            value, generation = storage.read_written("x")
            assert value == winner and generation in answers
    assert storage.names() == ["x"]


def test_a_folder_that_is_removed_while_files_are_listed_is_passed_by(tmp_path, monkeypatch):
    """As those of a save that is being committed."""
    (tmp_path / "removed").mkdir()
    (tmp_path / "kept").write_bytes(b"")
    scan = os.scandir

    def remove_first(path):
        if Path(path) == tmp_path / "removed":
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", remove_first)
    assert open_storage(str(tmp_path)).names() == ["kept"]
    assert not (tmp_path / "removed").exists()


def test_a_name_in_a_folder_that_is_no_ordinary_file_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="no ordinary file"):
        open_storage(str(tmp_path)).read_whole("x", 10)


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/hosts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="hosts is a link"):
        open_storage(str(tmp_path / "run")).write("hosts/0.json", b"{}")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("path", ["s3://bucket/run", "https://example.org/run"])
def test_other_kinds_of_storage_are_refused_by_name(path: str):
    with pytest.raises(UserError, match="only those of Google Cloud Storage"):
        open_storage(path)


def test_a_home_folder_and_a_relative_path_are_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    open_storage("~/run").write("x", b"1")
    assert open_storage("run").url == str(tmp_path / "run") and Path("run/x").read_bytes() == b"1"
