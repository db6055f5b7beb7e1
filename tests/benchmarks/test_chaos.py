"""What is done to real runs, in few trials, and how the trials are counted: one that does not hold is never hidden."""

import contextlib
import json
import signal
import socket
import subprocess
import threading
import time

import pytest
from programs import start_python

from benchmarks.chaos import __main__ as program
from benchmarks.chaos.clocks import SITECUSTOMIZE
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.rows import ROWS
from benchmarks.chaos.runner import format_results, run_rows
from benchmarks.chaos.trials import Broken, Reference, References, Row, Skipped, Trials, end_of
from mixer_jax import app, endings


@pytest.fixture(scope="module")
def references(tmp_path_factory) -> References:
    return References(tmp_path_factory.mktemp("references"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_few_trials_hold(name: str, references: References, tmp_path):
    results = run_rows({name: ROWS[name]}, {name: ROWS[name].short}, 0, 1, tmp_path, references)
    print(format_results({name: results[name].figures()}))
    if results[name].skipped:
        pytest.skip(results[name].skipped)
    assert not results[name].failures
    assert results[name].held == results[name].trials == ROWS[name].short


def draw(trials: Trials) -> dict[str, float]:
    (trials.folder / "file").touch()
    if trials.seed == 12:
        raise Broken("the bits differ")
    return {"sum": trials.count, "longest": trials.random.random()}


def skip(trials: Trials) -> dict[str, float]:
    raise Skipped("no rights")


FAKES = {
    "good": Row("a fault", "a law", draw, trials=7, short=1, unit=3, at_once=2),
    "bad": Row("a fault", "a law", draw, trials=4, short=1),
    "none": Row("a fault", "a law", skip, trials=4, short=1),
}


def test_trials_are_counted_by_what_held_and_a_failure_has_the_seed_that_repeats_it(tmp_path, capsys):
    results = run_rows(FAKES, {"good": 6, "bad": 4, "none": 4}, 10, 2, tmp_path, References(tmp_path))
    good, bad, none = results.values()
    assert (good.trials, good.held, good.numbers["sum"], good.failures) == (6, 6, 6, [])
    assert (bad.trials, bad.held) == (4, 3)
    assert bad.failures == [{"seed": 12, "trials": 1, "reason": "Broken: the bits differ"}]
    assert (none.trials, none.held, none.skipped) == (0, 0, "no rights")
    assert "bad, seed 12: Broken: the bits differ" in capsys.readouterr().err
    assert (tmp_path / "bad-12/file").exists() and not (tmp_path / "bad-11").exists()
    table = format_results({name: result.figures() for name, result in results.items()})
    assert "| a fault | 4 | a law | **3 held**; sum: 3; longest: " in table and "seed 12: Broken: the bits differ |" in table
    assert "| a fault | 0 | a law | skipped: no rights |" in table
    drawn = [run_rows({"bad": FAKES["bad"]}, {"bad": 1}, 13, 1, tmp_path, References(tmp_path)) for _ in range(2)]
    assert drawn[0]["bad"].numbers == drawn[1]["bad"].numbers


def test_the_program_ends_with_1_if_a_trial_does_not_hold_and_says_how_to_repeat_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(program, "ROWS", FAKES)
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(tmp_path / "folder"))
    command = ["--rows", "bad", "good", "--seed", "10", "--trials", "3"]
    assert app.run_tool(program.make_parser(), command) == endings.TRY_AGAIN
    said = capsys.readouterr()
    assert "**2 held**" in said.out and "Again: python -m benchmarks.chaos --rows bad --trials 1 --seed 12" in said.err
    assert app.run_tool(program.make_parser(), ["--rows", "good", "--short", "--json"]) == endings.DONE
    assert json.loads(capsys.readouterr().out)["rows"]["good"]["held"] == 1
    assert not (tmp_path / "folder").exists()


def test_ctrl_c_ends_the_processes_of_the_trials(tmp_path):
    begun = []

    def wait_for_ever(trials: Trials) -> dict[str, float]:
        begun.append(trials.started(start_python(["-c", "input()"], 1, subprocess.PIPE)))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        end_of(begun[0])
        return {}

    rows = {"row": Row("a fault", "a law", wait_for_ever, trials=2, short=1)}
    with pytest.raises(KeyboardInterrupt):
        run_rows(rows, {"row": 2}, 0, 1, tmp_path, References(tmp_path))
    assert [process.returncode for process in begun] == [-signal.SIGKILL]


@pytest.mark.parametrize("changed", ["params_sha256", "evals", "step", "loss"])
def test_a_run_with_other_figures_is_broken(changed: str, tmp_path):
    results, row = {"step": 1, "params_sha256": "a", "evals": {"top1": 0.5}}, {"step": 1, "loss": 0.25}
    reference = Reference(results, [row], 1.0, tmp_path)
    reference.check(json.dumps(results).encode(), json.dumps(row | {"images_per_sec": 3}).encode())
    ended = [values | ({changed: "other"} if changed in values else {}) for values in (results, row)]
    with pytest.raises(Broken, match="without a fault"):
        reference.check(*(json.dumps(values).encode() for values in ended))


def test_a_program_that_ends_with_another_code_is_broken_and_one_that_is_left_is_killed(tmp_path):
    with Trials(1, 0, tmp_path / "trial", References(tmp_path)) as trials:
        with pytest.raises(Broken, match="exit code 3, and 0 or 75 was expected:\nfarewell"):
            end_of(trials.started(start_python(["-c", "print('farewell'); exit(3)"], 1)), 0, 75)
        left = trials.started(start_python(["-c", "input()"], 1, subprocess.PIPE))
    assert left.returncode == -signal.SIGKILL


@pytest.mark.parametrize("silently", [True, False])
def test_a_proxy_that_is_cut_lets_no_byte_through(silently: bool):
    with socket.create_server(("localhost", 0)) as server:
        proxy = Proxy(server.getsockname()[1])
        with contextlib.closing(proxy), socket.create_connection(("127.0.0.1", proxy.port)) as client:
            served, _ = server.accept()
            with served:
                client.sendall(b"1")
                assert served.recv(1) == b"1"
                served.sendall(b"2")
                assert client.recv(1) == b"2"
                proxy.cut(silently)
                served.settimeout(0.2)
                with contextlib.suppress(ConnectionError):
                    client.sendall(b"3")
                if silently:
                    with pytest.raises(TimeoutError):
                        served.recv(1)
                else:
                    assert served.recv(1) == b""
                    with pytest.raises(ConnectionError):
                        socket.create_connection(("127.0.0.1", proxy.port))


def test_a_clock_that_jumps_is_seen_by_a_program_and_its_other_clock_goes_on(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    code = "import time; start = time.monotonic(); print(time.time(), time.monotonic() - start)"
    shown = end_of(start_python(["-c", code], 1, PYTHONPATH=str(tmp_path), CLOCK_SEED="1")).split()
    assert abs(float(shown[0]) - time.time()) > 1 and 0 <= float(shown[1]) < 60
