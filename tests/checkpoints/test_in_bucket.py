"""Reading a run in a bucket: the newest sound step, the best, one step, and what somebody else's bucket may hold."""

import json

import numpy as np
import pytest

import mixer_jax.bucket
from mixer_jax.checkpoints.in_bucket import load_run_in_bucket
from mixer_jax.checkpoints.manager import Checkpoints, load_run
from mixer_jax.checkpoints.run_paths import config_file
from mixer_jax.errors import UserError
from mixer_jax.records import read_metrics

RUN = "gs://bucket/runs/one"


@pytest.fixture(autouse=True)
def many_ranges(monkeypatch):
    """Read an object in many ranges."""
    monkeypatch.setattr(mixer_jax.bucket, "RANGE_BYTES", 3000)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on a disk. Read only."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(str(folder), keep=2)
    for step in (10, 20):
        tree = {"stem": {"kernel": np.full((40, 50), step, np.float32)}}
        checkpoints.save(step, {"params": tree, "optimizer": tree}, {"step": step})
    checkpoints.finish()
    (folder / "config.json").write_text('{"batch_size": 7}')
    return folder


@pytest.fixture
def uploaded(cloud, run):
    """The same run in the bucket, whose steps are committed as in a bucket."""
    for file in run.rglob("*"):
        if file.is_file():
            cloud.objects["bucket", f"runs/one/{file.relative_to(run)}"] = file.read_bytes()
    for step in (10, 20):
        cloud.objects["bucket", f"runs/one/checkpoints/{step}/commit_success.txt"] = b""
    return cloud


def step_of(url: str) -> int:
    arrays, meta = load_run_in_bucket(url)
    np.testing.assert_array_equal(arrays["stem/kernel"], meta["step"])
    return meta["step"]


def test_a_run_is_what_it_is_on_a_disk(uploaded, run):
    (arrays, meta), (there, meta_there) = load_run(str(run)), load_run_in_bucket(RUN)
    np.testing.assert_array_equal(arrays["stem/kernel"], there["stem/kernel"])
    assert meta == meta_there
    read = {request.name for request in uploaded.requests if request.action == "read"}
    assert not any("/optimizer/" in name or "/10/" in name for name in read)


def test_one_step_the_best_and_the_newest_committed_step_are_found(uploaded):
    assert (step_of(f"{RUN}/"), step_of(f"{RUN}/checkpoints/10")) == (20, 10)
    uploaded.objects["bucket", "runs/one/best.json"] = b'{"step": 10}'
    assert step_of(f"{RUN}/best") == 10
    del uploaded.objects["bucket", "runs/one/checkpoints/20/commit_success.txt"]
    assert step_of(RUN) == 10


def test_a_step_with_changed_bytes_is_passed_over_and_then_none_is_left(uploaded):
    for step, left in ((20, "10"), (10, "")):
        names = [name for _, name in uploaded.objects if f"/{step}/params/" in name and "/d/" in name]
        for name in names:
            uploaded.objects["bucket", name] = uploaded.objects["bucket", name][:-1] + b"\0"
        if left:
            assert step_of(RUN) == int(left)
    with pytest.raises(UserError, match=rf"No readable checkpoint in {RUN}/checkpoints/20\. .*{RUN}/checkpoints/10"):
        load_run_in_bucket(RUN)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/nothing", "^There is no run at gs://bucket/nothing"),
        ("gs://nobody/run", "^There is no run at gs://nobody/run"),
        (f"{RUN}/best", f"^There is no run at {RUN}/best"),
        (f"{RUN}/checkpoints/30", f"There is no {RUN}/checkpoints/30"),
    ],
)
def test_what_is_not_there_is_named(uploaded, url: str, message: str):
    with pytest.raises(UserError, match=message):
        load_run_in_bucket(url)


@pytest.mark.parametrize("name", ["params/../../../../../../tmp/a", "params/.a", "/a"])
def test_a_name_that_leads_elsewhere_is_refused(uploaded, name: str):
    uploaded.objects["bucket", f"runs/one/checkpoints/20/{name}"] = b"1"
    with pytest.raises(UserError, match=r"no run has an object of this name\. Remove it"):
        load_run_in_bucket(RUN)


def test_a_run_without_steps_says_so(uploaded):
    for key in [key for key in uploaded.objects if key[1].endswith("commit_success.txt")]:
        del uploaded.objects[key]
    with pytest.raises(UserError, match=f"No readable checkpoint in {RUN}. No step has been saved there."):
        load_run_in_bucket(RUN)


def test_the_config_of_a_run_is_copied(uploaded):
    for url in (RUN, f"{RUN}/checkpoints/10"):
        with open(config_file(url)) as file:
            assert json.load(file) == {"batch_size": 7}
    del uploaded.objects["bucket", "runs/one/config.json"]
    with pytest.raises(UserError, match=r"there is no config\.json\. Add --config=FILE"):
        config_file(RUN)
    assert "config" in load_run_in_bucket(RUN)[1]


def test_metrics_are_read_without_a_line_that_was_cut_off(cloud):
    assert read_metrics(RUN) == []
    cloud.objects["bucket", "runs/one/metrics.jsonl"] = b'{"step": 1, "loss": 2.0}\n{"step": 2, "lo'
    assert read_metrics(RUN) == [{"step": 1, "loss": 2.0}]


COMMITTED = ["10/commit_success.txt", "10/meta/metadata"]


@pytest.mark.parametrize(
    ("whole", "cut_off"),
    [
        ([], ["5/params/x"]),
        ([], ["5/params/x", "5/meta/y"]),
        ([], ["5/"]),
        (COMMITTED, ["5/params/x", "20/meta/y", "20/ema/d/z"]),
        (COMMITTED, [f"20/params/d/{number}" for number in range(200)]),
        (COMMITTED, []),
        (["notes/read_me"], []),
        ([], []),
    ],
    ids=lambda names: f"{len(names)} objects",
)
def test_what_a_save_left_that_was_cut_off_is_gone_before_the_steps_are_listed(cloud, whole: list[str], cut_off: list[str]):
    for name in whole + cut_off:
        cloud.objects["bucket", f"runs/one/checkpoints/{name}"] = b"1"
    cloud.objects["bucket", "runs/one/metrics.jsonl"] = b"1"
    checkpoints = Checkpoints(RUN, keep=2)
    assert checkpoints.all_steps() == ([10] if whole == COMMITTED else [])
    there = {name.removeprefix("runs/one/checkpoints/") for _, name in cloud.objects}
    assert there == {*whole, "runs/one/metrics.jsonl"}
