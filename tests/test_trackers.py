"""A tracker has the numbers of metrics.jsonl once, whatever happens to the run or to the tracker, and never costs the run."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_config import get_config
from tracker_stand_ins import Server, mlflow_of, wandb_of

import train
from mixer_jax import trackers
from mixer_jax.config import flatten
from mixer_jax.endings import DONE, STOPPED
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.records import MetricWriter, read_metrics
from mixer_jax.trackers import check_tracker, open_tracker
from mixer_jax.training.preemption import StopRequest
from mixer_jax.workdir import Workdir

STAND_INS = {"wandb": wandb_of, "mlflow": mlflow_of}
STATES = {
    "wandb": {"finished": ["exit 0"], "failed": ["exit 1"], "stopped": ["preempting", "exit 1"]},
    "mlflow": {"finished": ["FINISHED"], "failed": ["FAILED"], "stopped": ["KILLED"]},
}


@pytest.fixture(params=STAND_INS)
def tool(request) -> str:
    return request.param


@pytest.fixture
def server(tool: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setitem(sys.modules, tool, STAND_INS[tool](server))
    return server


@pytest.fixture
def start(tool: str, tmp_path: Path):
    """Start the writing of metrics in the same folder, from a step on."""
    config, folder = get_config(), tmp_path / "b16"
    config.tracker = tool
    folder.mkdir()

    def start(from_step: int = 0, tracker: str = tool) -> MetricWriter:
        config.tracker = tracker
        return MetricWriter(folder, from_step, open_tracker=lambda: open_tracker(config, folder))

    start.folder, start.config = folder, config
    return start


def in_file(folder: Path) -> list[tuple]:
    """The numbers of metrics.jsonl."""
    rows = read_metrics(folder)
    return [(name, row["step"], x) for row in rows for name, x in row.items() if name != "step" and x is not None]


def only_run(server: Server) -> dict:
    (run,) = server.runs.values()
    return run


def test_a_tracker_has_the_numbers_of_metrics_jsonl_the_config_and_the_name_of_the_folder(tool, server, start):
    with start() as metrics:
        metrics.write(2, {"loss": 0.5, "mfu": None})
        metrics.write_evals(2, {"test": {"top1": 0.25, "seeds": [1, 2]}})
    run = only_run(server)
    assert run["numbers"] == in_file(start.folder) == [("loss", 2, 0.5), ("test/top1", 2, 0.25)]
    assert run["name"] == "b16" and run["states"] == ["running", *STATES[tool]["finished"]]
    options = flatten(start.config)
    assert run["options"] == (options if tool == "wandb" else {name: str(value) for name, value in options.items()})


def test_a_resumed_run_goes_on_in_the_same_run_and_sends_nothing_twice(tool, server, start):
    killed = start()
    for step in (2, 4, 6):
        killed.write(step, {"loss": 1 / step})
    killed._tracker._queue.put("failed")  # a kill, when all was sent
    killed._tracker._thread.join()
    with start(from_step=4) as metrics:
        metrics.write_evals(4, {"test": {"top1": 0.5}})  # The evaluation that the kill cut off is made up for.
        for step in (6, 8):
            metrics.write(step, {"loss": 1 / step})
    assert sorted(only_run(server)["numbers"]) == sorted(in_file(start.folder))


@pytest.mark.parametrize("tool", ["wandb"], indirect=True)
@pytest.mark.parametrize("lost", [1, 3])
def test_numbers_that_a_kill_has_kept_from_the_server_are_sent_again(server, start, lost):
    with start() as metrics:
        for step in (2, 4, 6):
            metrics.write(step, {"loss": 1 / step})
    del only_run(server)["numbers"][-lost:]
    with start(from_step=4) as metrics:
        for step in (6, 8):
            metrics.write(step, {"loss": 1 / step})
    assert only_run(server)["numbers"] == in_file(start.folder)


@pytest.mark.parametrize("before", ["none", "the other"])
def test_a_tracker_that_a_run_gets_later_is_sent_the_earlier_numbers_too(tool, server, start, before, monkeypatch):
    other = next(name for name in STAND_INS if name != tool)
    elsewhere = Server()
    monkeypatch.setitem(sys.modules, other, STAND_INS[other](elsewhere))
    for from_step, name in enumerate([other if before == "the other" else "none", tool, "none", tool]):
        with start(from_step, name) as metrics:
            metrics.write(from_step + 1, {"loss": 1.0})
    assert only_run(server)["numbers"] == in_file(start.folder) == [("loss", step, 1.0) for step in (1, 2, 3, 4)]
    assert [len(run["numbers"]) for run in elsewhere.runs.values()] == ([1] if before == "the other" else [])


def fail() -> None:
    raise ConnectionError("the network is gone\nand more")


def test_a_tracker_that_fails_is_said_once_and_the_next_start_sends_what_is_missing(tool, server, start, capsys):
    with start() as metrics:
        metrics.write(2, {"loss": 1.0})
        while not only_run(server)["numbers"]:
            pass
        server.fault = fail
        for step in (4, 6):
            metrics.write(step, {"loss": 1.0})
    said = capsys.readouterr().err.splitlines()[1:]
    assert said == [
        f"{trackers.TITLES[tool]} gets no more metrics: ConnectionError: the network is gone. metrics.jsonl has all of them, and "
        "the next start of this run sends those that are missing."
    ]
    with start(from_step=6):  # The tracker cannot even be reached.
        pass
    assert capsys.readouterr().err.splitlines() == said
    server.fault = lambda: None
    with start(from_step=6):
        pass
    assert only_run(server)["numbers"] == in_file(start.folder) and len(in_file(start.folder)) == 3


def test_a_first_start_is_refused_where_the_tracker_cannot_be_used(tool, server, start, monkeypatch):
    server.fault = fail
    with pytest.raises(EnvironmentFault, match=r"cannot be used: ConnectionError: the network is gone. Mend this, or .*=none\)"):
        start()
    server.fault = lambda: threading.Event().wait(1)
    monkeypatch.setattr(trackers, "OPEN_SECONDS", 0.01)
    with pytest.raises(EnvironmentFault, match=r"cannot be used: it did not answer within 0.01 seconds"):
        start()
    assert not (start.folder / "trackers.json").exists()


@pytest.mark.parametrize("tool", ["wandb"], indirect=True)
def test_a_login_that_is_missing_is_for_a_person_to_mend(tool, server, start):
    def no_key() -> None:
        raise sys.modules[tool].errors.UsageError("No API key configured. Use `wandb login` to log in.")

    server.fault = no_key
    with pytest.raises(UserError, match=r"Weights & Biases cannot be used: UsageError: No API key configured. Use `wandb login`"):
        start()


def test_a_tracker_that_hangs_does_not_hold_up_the_end_of_a_run(tool, server, start, monkeypatch, capsys):
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.05)
    hanging = threading.Event()
    with start() as metrics:
        server.fault = hanging.wait
        metrics.write(2, {"loss": 1.0})
    assert "gets no more metrics: it has not taken all within 0.05 seconds. metrics.jsonl has" in capsys.readouterr().err
    assert metrics._tracker._thread.daemon
    hanging.set()


def test_a_run_that_fails_is_said_to_have_failed(tool, server, start):
    with pytest.raises(ZeroDivisionError), start():
        _ = 1 / 0
    assert only_run(server)["states"][1:] == STATES[tool]["failed"]


@pytest.mark.parametrize("tool", ["wandb"], indirect=True)
def test_a_run_sends_its_metrics_and_says_that_it_was_stopped_and_then_that_it_has_finished(
    tool, server, tmp_path, compiled_once, monkeypatch
):
    config = get_config()
    config.tracker, config.total.steps, config.evals = tool, 4, {}
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "reached", lambda _: True)
        assert train.train(config, str(tmp_path)) == STOPPED
    assert train.train(config, str(tmp_path)) == DONE
    run, states = only_run(server), STATES[tool]
    assert run["states"] == ["running", *states["stopped"], "running", *states["finished"]]
    assert run["numbers"] == in_file(tmp_path) and run["numbers"]


def test_a_library_that_is_not_installed_is_named_before_anything_is_written(tool, tmp_path, monkeypatch):
    (tmp_path / tool).mkdir()  # A folder of this name, such as W&B leaves, is no library.
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    config = get_config()
    config.tracker = tool
    with pytest.raises(UserError, match=rf"config.tracker={tool} needs .* not installed: pip install 'mixer_jax\[{tool}\]'"):
        train.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    check_tracker("none")


@pytest.mark.parametrize("record", [[], 3, {"id": 3}, {"last_steps": []}, {"id": "a", "last_steps": {"loss": "x"}}])
@pytest.mark.parametrize("tool", ["wandb"], indirect=True)
def test_a_damaged_record_is_named(tool, start, record):
    (start.folder / "trackers.json").write_text(json.dumps({tool: record}))
    with pytest.raises(UserError, match=r"trackers.json is damaged. Remove it: Weights & Biases then gets a new run"):
        start()


def test_a_host_that_does_not_write_and_a_run_without_a_tracker_open_none(tool, server, tmp_path):
    config = get_config()
    assert open_tracker(config, tmp_path) is None
    config.tracker = tool
    MetricWriter(tmp_path, 0, writer=False, open_tracker=lambda: open_tracker(config, tmp_path)).close()
    assert not server.runs


def test_without_a_tracker_none_is_imported():
    code = "import sys, train; assert not {'wandb', 'mlflow', 'huggingface_hub'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(train.__file__).parent)


def test_a_run_may_get_another_tracker_when_it_is_resumed(tool, tmp_path):
    workdir, config = Workdir(str(tmp_path)), get_config()
    workdir.record_start(config, {})
    config.tracker = tool
    workdir.refuse_other_run(config)
