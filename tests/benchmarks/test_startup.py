"""The seconds to the first step are those of its phases, and those of a save come from runs that differ in their saves alone."""

import json
from pathlib import Path

import pytest

from benchmarks import startup
from mixer_jax import app, endings

STARTS = {  # {run: the seconds of its starts by phase}
    "first": [{"initialization": 2.0, "compile": 5.0, "restore": 0.5, "data": 1.0, "training": 0.25, "checkpoint": 3.0}],
    "second": [{"initialization": 2.0, "compile": 1.0, "restore": 0.5, "data": 1.0, "training": 0.25, "checkpoint": 1.0}],
    "resumed": [{"checkpoint": 9.0}, {"initialization": 2.0, "restore": 1.5, "compile": 1.0, "checkpoint": 9.0}],
    "several": [{"initialization": 2.0, "checkpoint": 1.0 + 0.25 * (startup.SAVES - 1)}],
}


def test_the_figures_are_those_of_the_last_start_of_each_run(monkeypatch, capsys):
    starts = {run: iter(seconds) for run, seconds in STARTS.items()}

    def fake_run(command, env, **_):
        workdir = Path(command[-1].removeprefix("--workdir="))
        assert workdir.parent / "cache" == Path(env["XDG_CACHE_HOME"]) and "JAX_COMPILATION_CACHE_DIR" not in env
        (workdir / "checkpoints/2").mkdir(parents=True)
        seconds, number = next(starts[workdir.name]), (workdir / "goodput.jsonl").exists()
        rows = [json.dumps({"start": int(number), "phase": phase, "seconds": s}) for phase, s in seconds.items()]
        with open(workdir / "goodput.jsonl", "a") as file:
            file.write("\n".join(rows) + "\n")
        return startup.subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(startup.subprocess, "run", fake_run)
    assert app.run_tool(startup.make_parser(), ["demo", "--repeats=1", "--json"]) == endings.DONE
    figures = json.loads(capsys.readouterr().out)
    totals = {kind: seconds["total"] for kind, seconds in figures["seconds"].items()}
    assert totals == {"nothing on disk": 8.75, "compiled programs on disk": 4.75, "a checkpoint too": 4.5}
    assert figures["seconds"]["a checkpoint too"]["restore"] == 1.5
    assert figures["save_seconds"] == pytest.approx(0.25)
