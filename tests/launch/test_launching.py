"""`python -m mixer_jax launch` as it is typed."""

import json
import sys
from pathlib import Path

import pytest
from launch.requests import BUNDLE, CONFIG, REQUESTS

from mixer_jax.__main__ import main
from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.launch import carry_out, launching
from mixer_jax.launch.commands import Observed
from mixer_jax.launch.record import read_record

TPU = [
    "launch", "tpu", "--name=l16", "--type=v4-64", "--zone=europe-west4-a", "--project=p", "--bucket=gs://bucket/mixer/",
    "--max-hours=48", "--queued", "--spot",
]  # fmt: skip
WORDS = ["--", *REQUESTS["v4-64"].words]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, cloud):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(launching, "make_bundle", lambda *_: BUNDLE)
    monkeypatch.setattr(launching.time, "time", lambda: 1764589000.5)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", *arguments])
        try:
            code = main()
        except SystemExit as ended:  # argparse ends the program.
            code = ended.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def programs(monkeypatch) -> list[list[str]]:
    """Return the list of the programs that would be run from now on."""
    called = []
    monkeypatch.setattr(
        carry_out.subprocess, "run", lambda words, **_: called.append(words) or type("Ended", (), {"returncode": 0})
    )
    return called


def test_a_dry_run_observes_prints_the_recorded_list_and_writes_nothing(call, cloud, monkeypatch, tmp_path):
    observed = []
    monkeypatch.setattr(launching.tpu, "observe", lambda *arguments: observed.append(arguments) or Observed())
    code, out, err = call(*TPU, "--dry-run", *WORDS)
    assert code == DONE, err
    expected = (Path(__file__).parent / "recorded/v4-64.txt").read_text()
    assert out == expected.replace("/home/me/.local/state", str(tmp_path / "state"))
    assert observed and not (tmp_path / "state").exists() and not cloud.requests


def test_a_launch_carries_out_what_the_dry_run_prints_and_leaves_a_record_here_and_in_the_bucket(call, monkeypatch, tmp_path):
    monkeypatch.setattr(launching.tpu, "observe", lambda *_: Observed())
    dry = call(*TPU, "--dry-run", *WORDS)[1]
    called = programs(monkeypatch)
    code, out, err = call(*TPU, *WORDS)
    assert code == DONE, err
    assert out == dry and [words[4] for words in called] == ["create"]
    here, there = read_record("l16"), read_record("l16", "gs://bucket/mixer")
    assert here == there and here.bundle == BUNDLE.digest and here.launched == 1764589000
    assert here.request.command == REQUESTS["v4-64"].command
    assert (tmp_path / "state/mixer_jax/launches/l16/host.sh").read_text().startswith("#!/bin/bash")


@pytest.mark.parametrize("name", ["gke", "slurm"])
def test_files_are_written_to_a_folder_and_the_commands_that_use_them_are_printed(name: str, call, monkeypatch, tmp_path):
    called = programs(monkeypatch)
    options = {
        "gke": ["--bucket=gs://bucket/x", "--image=i:1", "--accelerator=tpu-v6e-slice", "--topology=4x4"],
        "slurm": ["--root=/shared/mixer", "--nodes=2", "--gpus=4"],
    }
    code, out, err = call("launch", name, "--name=l16", "--max-hours=1", *options[name], f"--write={tmp_path}/out", "--", CONFIG)
    assert code == DONE and not called, err
    files = {"gke": {"bundle.tar", "Dockerfile", "jobset.json"}, "slurm": {"bundle.tar", "l16.sbatch"}}
    assert {file.name for file in (tmp_path / "out").iterdir()} == files[name]
    assert "Then type:" in out and {"gke": "kubectl apply", "slurm": "sbatch /shared/mixer/launches/l16/l16.sbatch"}[name] in out
    assert read_record("l16").request.backend == name


@pytest.mark.parametrize(
    "missing", ["--max-hours=48", "--name=l16", "--zone=europe-west4-a", "--project=p", "--bucket=gs://bucket/mixer/"]
)
def test_a_launch_without_a_limit_or_a_place_is_refused(missing: str, call):
    code, _, err = call(*[word for word in TPU if word != missing], *WORDS)
    assert code == TO_MEND and missing.partition("=")[0] in err


def test_a_program_that_is_not_installed_is_named(call, monkeypatch):
    monkeypatch.setattr(launching.tpu, "observe", lambda *_: Observed())
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = call(*TPU, *WORDS)
    assert code == TO_MEND and "no program gcloud" in err


def test_a_variable_is_typed_with_a_value(call):
    code, _, err = call(*TPU, "--env=A", *WORDS)
    assert code == TO_MEND and "--env=NAME=VALUE" in err


def test_a_damaged_record_is_refused(call, tmp_path):
    file = tmp_path / "state/mixer_jax/launches/l16/launch.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"launched": 1}))
    with pytest.raises(ValueError, match="no record of a launch"):
        read_record("l16")
