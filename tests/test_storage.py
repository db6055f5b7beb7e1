"""Files are written whole or not at all, and the cache lies where its user says."""

import contextlib
import json
import os
import stat

import pytest

from mixer_jax.errors import UserError
from mixer_jax.storage import cache_folder, check_regular, read_json, refuse_links, write_json, write_whole


@pytest.mark.parametrize("moment", ["write_text", "replace"])
def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch, moment):
    file = tmp_path / "results.json"
    write_json(file, {"step": 1})

    def fail_half_way(path, text):
        with open(path, "w") as half:
            half.write(text[: len(text) // 2])
        raise OSError("disk full")

    def fail(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"disk full|killed"):
        if moment == "write_text":
            patch.setattr("pathlib.Path.write_text", fail_half_way)
        else:
            patch.setattr(os, "replace", fail)
        write_json(file, {"step": 2, "more": list(range(100))})
    assert json.loads(file.read_text()) == {"step": 1}
    write_json(file, {"step": 3})
    assert json.loads(file.read_text()) == {"step": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("error", [OSError("disk full"), UserError("refused"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_nothing(tmp_path, error):
    file = tmp_path / "page.html"
    with pytest.raises(type(error)), write_whole(file) as temporary:
        temporary.write_text("half a pa")
        assert not file.exists()
        raise error
    assert not list(tmp_path.iterdir())


def test_the_temporary_file_lies_where_it_is_told_to(tmp_path):
    (tmp_path / "work").mkdir()
    with write_whole(tmp_path / "shard", tmp_path / "work") as temporary:
        temporary.write_bytes(b"whole")
        assert [entry.name for entry in tmp_path.iterdir()] == ["work"]
    assert (tmp_path / "shard").read_bytes() == b"whole" and not list((tmp_path / "work").iterdir())


def test_json_comes_back_and_what_is_missing_is_empty(tmp_path):
    write_json(tmp_path / "facts.json", {"b": [1, 2.5, None], "a": "\u00e4"})
    assert read_json(tmp_path / "facts.json") == {"b": [1, 2.5, None], "a": "\u00e4"}
    assert read_json(tmp_path / "other.json") == {}
    (tmp_path / "facts.json").write_text("{")
    with pytest.raises(UserError, match=r"facts\.json is damaged"):
        read_json(tmp_path / "facts.json")


def test_the_cache_is_the_users_own_and_may_be_impossible(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = cache_folder("compiled/host")
    assert folder == tmp_path / "cache/mixer_jax/compiled/host" and stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("verified") == tmp_path / ".cache/mixer_jax/verified"
    folder.chmod(0o770)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"Others may write in .*compiled/host"):
        cache_folder("compiled/host")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder("verified") is None


def test_a_link_that_waits_in_the_folder_is_never_written_through(tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    canary.write_text("whole")
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "run.json"
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    for name in (file.name, f".{file.name}.known.tmp", f".{file.name}.{os.getpid()}.tmp"):
        link = tmp_path / "run" / name
        link.symlink_to(canary)
        with contextlib.suppress(FileExistsError):
            write_json(file, {"step": 1})
        assert canary.read_text() == "whole"
        link.unlink()


def test_a_folder_that_we_manage_is_no_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"checkpoints is a link to '.*elsewhere'"):
        refuse_links(tmp_path / "missing", tmp_path / "elsewhere", tmp_path / "checkpoints")


@pytest.mark.parametrize("content", [b"{", b"\xff{}", b"[" * 100_000, b"[1]", b"3", b"null", b'{"a": 1} x'])
def test_what_is_no_table_of_json_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        read_json(tmp_path / "run.json")


def test_pipes_devices_and_floods_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "flood").touch()
    os.truncate(tmp_path / "flood", 2**40)
    for name, message in {"pipe": "ordinary", "device": "ordinary", "folder": "ordinary", "flood": "at most 536870912"}.items():
        with pytest.raises(UserError, match=message):
            read_json(tmp_path / name)


def test_what_a_library_opens_is_checked_before(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "file").write_bytes(bytes(10))
    check_regular(tmp_path / "file")
    check_regular(tmp_path / "file", max_bytes=10)
    for name, message in {"pipe": "ordinary", "device": "ordinary", "file": "has 10 bytes; such a file has at most 9"}.items():
        with pytest.raises(UserError, match=message):
            check_regular(tmp_path / name, max_bytes=9)
