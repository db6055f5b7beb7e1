"""The folder of a run in a bucket: its owner, its files on this machine and in the bucket, and what a foreign bucket may hold."""

import importlib.util
import json
import time

import pytest
from stand_ins.cloud_faults import Down

from mixer_jax import lease, mirror
from mixer_jax.config import default_config
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.mirror import is_file_of_run, is_plain
from mixer_jax.workdir import Workdir, check_workdir, refuse_run_folder

URL = "gs://bucket/runs/one"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Wait a little for a lease, and keep temporary folders under `tmp_path`."""
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def objects(cloud):
    """Return a function that returns {name in the run's folder: content}, without the lease."""
    prefix = "runs/one/"

    def read() -> dict[str, bytes]:
        return {name.removeprefix(prefix): data for (_, name), data in cloud.objects.items() if name != f"{prefix}{lease.LEASE}"}

    return read


def writes(cloud) -> list[str]:
    named = [request.name for request in cloud.requests if request.action == "write"]
    return [name.removeprefix("runs/one/") for name in named if not name.endswith(lease.LEASE)]


def test_what_changes_is_uploaded_and_comes_back_at_the_next_start(cloud, objects, tmp_path):
    with Workdir(f"{URL}/") as run:
        assert (run.name, run.path.parent, run.owner) == (URL, tmp_path / "cache/mixer_jax/runs", run.read_owner())
        run.add_results({"step": 1, "params_sha256": "a"})
        (run.path / "tensorboard").mkdir()
        (run.path / "tensorboard/events").write_bytes(b"1")
        for name in ("wandb/log", ".hidden.tmp", "notes.md"):
            (run.path / name).parent.mkdir(exist_ok=True)
            (run.path / name).write_bytes(b"not ours")
    run.upload()
    assert sorted(writes(cloud)) == ["results.json", "tensorboard/events"]
    (run.path / "tensorboard/events").write_bytes(b"12")
    run.upload()
    assert sorted(writes(cloud)) == ["results.json", "tensorboard/events", "tensorboard/events"]
    assert objects() == {"results.json": (run.path / "results.json").read_bytes(), "tensorboard/events": b"12"}
    folder = run.path
    del run
    assert not folder.exists()
    again = Workdir(URL)
    assert again.has_results(1) and (again.path / "tensorboard/events").read_bytes() == b"12"
    again.upload()
    assert len(writes(cloud)) == 3


def test_a_note_of_any_host_is_in_the_bucket_at_once_and_no_file_of_the_next_start(cloud, objects):
    run, other = Workdir(URL), Workdir(URL, writer=False)
    run.write_note("hosts/0.json", "zero")
    other.write_note("hosts/1.json", "one")
    assert objects() == {"hosts/0.json": b"zero", "hosts/1.json": b"one"}
    del run
    assert not (Workdir(URL).path / "hosts").exists()
    cloud.fail(Down())
    with pytest.raises(EnvironmentFault, match=f"{URL}/hosts/1.json cannot be written"):
        other.write_note("hosts/1.json", "two")


def test_a_second_run_is_refused_and_an_end_makes_room(cloud):
    first = Workdir(URL)
    with pytest.raises(EnvironmentFault, match=f"{URL} is in use by process .* on .*another --workdir"):
        Workdir(URL)
    del first
    Workdir(URL)
    assert Workdir(URL, writer=False).owner is None


def test_another_host_reads_the_owner_and_two_files_and_writes_nothing(cloud, objects):
    cloud.objects["bucket", "runs/one/results.json"] = b'{"step": 1}'
    cloud.objects["bucket", "runs/one/metrics.jsonl"] = b""
    run, other = Workdir(URL), Workdir(URL, writer=False)
    assert other.read_owner() == run.owner
    assert [file.name for file in other.path.iterdir()] == ["results.json"]
    (other.path / "results.json").write_text("changed")
    other.upload()
    assert objects()["results.json"] == b'{"step": 1}'


def test_a_zombie_uploads_and_removes_nothing(cloud, objects, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(lease, "RENEWAL_SECONDS", 1000)  # It renews nothing, as a process that was stopped.
        zombie = Workdir(URL)
    (zombie.path / "best.json").write_text("1")
    zombie.upload()
    heir = Workdir(URL)
    (zombie.path / "best.json").write_text("2")
    for write in (zombie.upload, lambda: zombie.remove("best.json"), zombie.check_owner):
        with pytest.raises(EnvironmentFault, match=f"{URL} belongs to process"):
            write()
    assert objects() == {"best.json": b"1"}
    heir.check_owner()


def test_only_what_the_run_removes_is_deleted(cloud, objects):
    run = Workdir(URL)
    for name in ("best.json", "results.json"):
        (run.path / name).write_text("{}")
    run.upload()
    (run.path / "results.json").unlink()  # As by someone who clears the cache.
    run.remove("best.json")
    run.remove("best.json")
    run.upload()
    assert objects() == {"results.json": b"{}"}


def test_in_the_background_a_bucket_that_is_down_is_said_once_and_then_made_up_for(cloud, objects, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "UPLOAD_SECONDS", 0.02)
    run = Workdir(URL)
    with cloud.failing(Down()):
        (run.path / "run.json").write_text("{}")
        time.sleep(0.5)
        with pytest.raises(EnvironmentFault, match="cannot be written"):
            run.upload()
    deadline = time.monotonic() + 10
    while not objects() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert objects() == {"run.json": b"{}"}
    assert capsys.readouterr().err.count("The run goes on until its next checkpoint.") == 1


def test_an_error_of_the_run_is_not_hidden_by_one_of_its_last_upload(cloud):
    with pytest.raises(ZeroDivisionError), Workdir(URL) as run:
        (run.path / "run.json").write_text("{}")
        cloud.fail(Down())
        raise ZeroDivisionError


FOREIGN = [
    "../a.json", "/a.json", "tensorboard/../../a", "tensorboard//a", ".lease", "tensorboard/.a", "a\0.json", "checkpoints/1/a",
]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_names_that_no_run_writes_are_not_copied(name: str, cloud):
    cloud.objects["bucket", f"runs/one/{name}"] = b"{}"
    run = Workdir(URL)
    assert not is_file_of_run(name) and list(run.path.iterdir()) == []
    assert is_plain(name) == name.startswith("checkpoints")


def test_the_folder_of_a_run_takes_no_evaluation(cloud):
    refuse_run_folder(URL)
    cloud.objects["bucket", "runs/one/checkpoints/10/a"] = b""
    with pytest.raises(UserError, match=f"{URL} is the folder of a run, and its results.json would be replaced"):
        refuse_run_folder(URL)


def test_a_run_with_another_config_is_refused_by_its_url(cloud):
    cloud.objects["bucket", "runs/one/config.json"] = json.dumps({"batch_size": 7}).encode()
    with pytest.raises(UserError, match=rf"^{URL} (holds a run with another config|/config.json)"):
        Workdir(URL).refuse_other_run(default_config())


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("s3://bucket/run", UserError, "s3://bucket/run: of all buckets, only those of Google Cloud Storage can be used here"),
        ("gs://", UserError, "gs:// names no bucket"),
        ("gs://nobody/run", EnvironmentFault, "there is no such bucket"),
    ],
)
def test_a_bucket_is_tried_before_anything_else(cloud, monkeypatch, path: str, kind, message: str):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    check_workdir(URL)
    with pytest.raises(kind, match=message):
        check_workdir(path)
    assert not cloud.objects


def test_a_missing_library_is_named(cloud, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="in a bucket need a library that is not installed: pip install gcsfs"):
        check_workdir(URL)
