"""Heartbeats and logs, read from a folder and from a bucket."""

import itertools
import json
from pathlib import Path

import pytest

from mixer_jax.errors import UserError
from mixer_jax.launch import follow
from mixer_jax.launch.follow import format_heartbeats, heartbeats, log_lines
from mixer_jax.storage import open_storage


@pytest.fixture(params=["folder", "bucket"])
def run(request, tmp_path: Path, cloud) -> str:
    return str(tmp_path) if request.param == "folder" else "gs://bucket/run"


def beat(host: int, time: float, step: int | None = 40) -> bytes:
    fields = {"host": host, "machine": f"w-{host}", "pid": 1, "phase": "training", "step": step, "time": time}
    return json.dumps(fields | {"step_time": None if step is None else time - 5}).encode()


def test_each_host_has_a_row_that_says_whether_it_is_alive(run: str):
    storage = open_storage(run)
    assert "No host" in format_heartbeats(heartbeats(run), 0)
    for host, time in ((10, 1000.0), (2, 1090.0)):
        storage.write(f"hosts/{host}.json", beat(host, time))
    storage.write("hosts/3.json", beat(3, 1099.0, step=None))
    rows = [line.split() for line in format_heartbeats(heartbeats(run), 1100.0).splitlines()[1:]]
    assert [row[:5] for row in rows] == [
        ["2", "w-2", "yes", "training", "40"], ["3", "w-3", "yes", "training", "-"], ["10", "w-10", "no", "training", "40"],
    ]  # fmt: skip
    assert rows[0][5:] == ["15", "s", "10", "s"]


@pytest.mark.parametrize("damaged", [b"", b"[1]", b"{", b'{"host": 1}', beat(1, 1000.0).replace(b"1000.0", b'"soon"', 1)])
def test_a_damaged_sign_of_life_is_refused_by_name(run: str, damaged: bytes):
    open_storage(run).write("hosts/1.json", damaged)
    with pytest.raises(UserError, match=r"hosts/1\.json is damaged"):
        heartbeats(run)


def test_logs_come_in_the_order_of_their_starts_each_line_after_its_host(run: str):
    storage = open_storage(f"{run}/logs")
    storage.write("t1v-n-w-1-1764589010.log", b"second\n")
    storage.write("t1v-n-w-0-1764589000.log", b"first\nhalf a line")
    storage.write("t1v-n-w-0-0.log", b"setting up\n")
    assert list(log_lines(run, follow=False)) == [
        "t1v-n-w-0 | setting up", "t1v-n-w-0 | first", "t1v-n-w-0 | half a line", "t1v-n-w-1 | second",
    ]  # fmt: skip


def test_following_yields_each_line_once_when_it_is_whole(run: str, monkeypatch):
    storage = open_storage(f"{run}/logs")
    texts = iter([b"a\nb", b"a\nb\nc\n", b"a\nb\nc\n", b"a\nb\nc\nd\n"])
    storage.write("h-1.log", next(texts))
    monkeypatch.setattr(follow.time, "sleep", lambda _: storage.write("h-1.log", next(texts)))
    assert list(itertools.islice(log_lines(run, follow=True), 4)) == [f"h | {letter}" for letter in "abcd"]
