"""`launch status`, `logs`, `stop` and `delete` as they are typed, with what they run noted."""

import json
import sys
import time

import pytest
from launch.requests import BUNDLE, MOMENT, REQUESTS

from mixer_jax.__main__ import main
from mixer_jax.endings import DONE, TO_MEND, TRY_AGAIN
from mixer_jax.launch import carry_out, control
from mixer_jax.launch.commands import Observed, Write, job_text, record_steps
from mixer_jax.storage import open_storage

TWO_HOURS = {"began": MOMENT.time + 1000.0, "ended": MOMENT.time + 8200.0}
READY = Observed("ACTIVE", {"l16": "READY"}, num_hosts=16)


@pytest.fixture
def world(monkeypatch, capsys, tmp_path, cloud):
    """What is called, and what is answered, in a world in which one launch is recorded."""

    class World:
        code, observed, name = 0, READY, "v4-64"

        def call(self, *arguments: str) -> tuple[int, str, str]:
            request = REQUESTS[self.name]._replace(root=f"{tmp_path}/shared" if self.name == "slurm" else "gs://bucket/mixer")
            monkeypatch.setattr(sys, "argv", ["mixer_jax", "launch", *arguments])
            if not self.called:
                for step in record_steps(request, BUNDLE, MOMENT._replace(state_folder=control.state_folder("l16"))):
                    assert isinstance(step, Write)
                    folder, _, name = step.path.rpartition("/")
                    open_storage(folder).write(name, step.content)
            code = main()
            captured = capsys.readouterr()
            return code, captured.out, captured.err

    world = World()
    world.called = []
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("observe", "observe_machines"):
        monkeypatch.setattr(control.tpu, name, lambda *_: world.observed)

    def run(words, **_):
        world.called.append(words)
        return type("Ended", (), {"returncode": world.code})

    monkeypatch.setattr(carry_out.subprocess, "run", run)
    return world


def test_status_shows_the_resource_the_hosts_the_goodput_and_the_hours(world):
    row = {"start": 0, "phase": "training", "seconds": 7200.0, **TWO_HOURS, "first_step": 0, "last_step": 40}
    run = open_storage("gs://bucket/mixer/runs/l16")
    beat = {"host": 0, "machine": "w-0", "pid": 1, "phase": "training", "step": 40, "step_time": time.time(), "time": time.time()}
    code, out, err = world.call("status", "l16")
    assert code == DONE and "No host" in out and "recorded no time" in out and "used 0.0 of 48 hours" in out, err
    run.write("hosts/0.json", json.dumps(beat).encode())
    run.write("goodput.jsonl", json.dumps(row | {"ending": "running"}).encode() + b"\n")
    out = world.call("status", "l16")[1]
    assert "l16 is ready, queued resource ACTIVE, node l16 READY, 16 hosts." in out
    assert "w-0" in out and "goodput 100.0 %" in out and "It has used 2.0 of 48 hours." in out
    world.observed = READY._replace(ended={"w-0": 124})
    assert "w-0 ended with 124 the hours are used up" in world.call("status", "l16")[1]


def test_status_works_from_another_machine_that_names_the_bucket(world, monkeypatch, tmp_path):
    world.call("status", "l16")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    world.called = [["no record is written"]]
    code, _, err = world.call("status", "l16")
    assert code == TO_MEND and "--bucket=gs://BUCKET" in err
    assert world.call("status", "l16", "--bucket=gs://bucket/mixer")[0] == DONE


def test_logs_are_those_of_the_run(world):
    open_storage("gs://bucket/mixer/runs/l16/logs").write("w-0-1.log", b"step 1\n")
    assert world.call("logs", "l16")[1] == "w-0 | step 1\n"


def test_stop_reaches_all_hosts_and_takes_75_for_saved(world):
    world.code = 75
    code, out, _ = world.call("stop", "l16")
    assert code == DONE and "stopped and saved" in out
    (words,) = world.called
    assert words[4] == "ssh" and {"--worker=all", "--node=all"} <= set(words) and words[-1].endswith("l16/host.sh stop")
    world.code = 255
    code, _, err = world.call("stop", "l16")
    assert code == TRY_AGAIN and "launch logs l16" in err


@pytest.mark.parametrize(
    ("name", "words"), [("gke", ["kubectl", "patch", "jobset"]), ("slurm", ["scancel", "--me", "--name=l16"])]
)
def test_stop_and_delete_elsewhere_are_commands_of_the_scheduler(name, words, world):
    world.name = name
    assert world.call("stop", "l16")[0] == DONE and world.called[-1][:3] == words
    world.call("delete", "l16")
    assert world.called[-1][0] == words[0]


def test_delete_removes_everything_but_the_run_and_a_second_time_says_that_nothing_is_there(world):
    run = open_storage("gs://bucket/mixer/runs/l16")
    run.write("config.json", b"{}")
    open_storage("gs://bucket/mixer/launches/l16/hosts/1").write("w-0", b"0")
    assert world.call("delete", "l16")[0] == DONE
    assert [words[4] for words in world.called] == ["delete"]
    assert open_storage("gs://bucket/mixer").names() == ["runs/l16/config.json"]
    code, out, _ = world.call("delete", "l16")
    assert code == DONE and "There is nothing of the name l16" in out and "--bucket=gs://BUCKET" in out
    assert [words[4] for words in world.called] == ["delete"]


def test_nothing_is_run_to_delete_what_is_gone(world):
    world.observed = Observed()
    assert world.call("delete", "l16")[0] == DONE and not world.called


def test_a_resource_that_its_own_host_deletes_first_is_deleted(world, monkeypatch):
    states = iter([READY, Observed()])
    monkeypatch.setattr(control.tpu, "observe_machines", lambda *_: next(states))
    world.code = 1
    assert world.call("delete", "l16")[0] == DONE
    monkeypatch.setattr(control.tpu, "observe_machines", lambda *_: READY)
    world.called = []
    assert world.call("delete", "l16")[0] == TRY_AGAIN


def test_keep_launches_the_recorded_bundle_again_with_the_hours_that_are_left(world, monkeypatch):
    bundles = open_storage("gs://bucket/mixer/bundles")
    bundles.write(BUNDLE.file_name, BUNDLE.content)
    job = job_text(REQUESTS["v4-64"], BUNDLE, MOMENT)
    states = iter([Observed("SUSPENDED", has_bundle=True, job=job)] * 2 + [READY._replace(ended={"w-0": 0})] * 2)
    monkeypatch.setattr(control.tpu, "observe", lambda *_: next(states))
    monkeypatch.setattr(control.keep, "POLL_SECONDS", 0)
    code, out, err = world.call("keep", "l16")
    assert code == DONE and "l16 is done: gs://bucket/mixer/runs/l16" in out, err
    assert [words[4] for words in world.called] == ["delete", "create", "delete"]


def test_keep_counts_the_hours_of_machines_whose_run_has_recorded_nothing_over_all_slices(world, monkeypatch):
    open_storage("gs://bucket/mixer/bundles").write(BUNDLE.file_name, BUNDLE.content)
    monkeypatch.setattr(control.keep, "POLL_SECONDS", 0)
    now = MOMENT.time
    monkeypatch.setattr(control.time, "time", lambda: now)

    def keep(*states: tuple[float, Observed]) -> tuple[int, str, str]:
        """Watch states of the resource, each at its hour after the launch."""
        coming = iter(states)

        def observe(*_) -> Observed:
            nonlocal now
            hour, observed = next(coming)
            now = MOMENT.time + hour * 3600
            return observed

        monkeypatch.setattr(control.tpu, "observe", observe)
        return world.call("keep", "l16")

    def there(hour: float) -> Observed:
        return READY._replace(created={"l16": MOMENT.time + hour * 3600})

    lost = Observed("SUSPENDED")
    code, _, err = keep((10, there(2)), (12, lost), (12, lost), (13, there(12.5)._replace(ended={"w-0": 75})))
    assert code == TO_MEND and "was stopped" in err
    # The first slice was seen from hour 2 to hour 10, so 40 hours are left to the next one.
    launch = open_storage("gs://bucket/mixer/launches/l16")
    assert f"SECONDS_ALLOWED={40 * 3600}" in launch.read_whole("job.env", 2**20).decode()
    record = json.loads(launch.read_whole("launch.json", 2**20))
    assert (record["launched"], record["counted_from"]) == (MOMENT.time + 12 * 3600, MOMENT.time)
    # Another keeper goes on from there: 8 hours, and then 40.25 from hour 12.5.
    monkeypatch.setattr(control.tpu, "observe", lambda *_: there(12.5))
    assert "It has used 8.5 of 48 hours" in world.call("status", "l16")[1]
    world.called.clear()
    code, _, err = keep((20, there(12.5)), (52.75, there(12.5)), (52.8, there(12.5)))
    assert code == TO_MEND and "has used its 48 hours" in err
    assert [words[4] for words in world.called] == ["delete"]


def test_keep_never_launches_another_code_than_the_recorded_one(world, monkeypatch):
    monkeypatch.setattr(control.tpu, "observe", lambda *_: Observed("SUSPENDED"))
    open_storage("gs://bucket/mixer/bundles").write(BUNDLE.file_name, b"other code")
    code, _, err = world.call("keep", "l16")
    assert code == TO_MEND and "gone or damaged" in err and not world.called


def test_keep_is_refused_where_a_scheduler_does_it(world):
    world.name = "gke"
    code, _, err = world.call("keep", "l16")
    assert code == TO_MEND and "by itself" in err
