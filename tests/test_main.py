"""The tools beside training."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mixer_jax.__main__ import NEED_CLONE, ROOMS, main, make_parser
from mixer_jax.app import local_path, parse_tool, read_config
from mixer_jax.bench import input, pipelines, step
from mixer_jax.checkpoints.weights import SUFFIXES
from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.errors import UserError
from mixer_jax.export.cli import PROGRAMS, WEIGHT_FILES
from mixer_jax.export.program import FORMATS


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", *arguments])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_digest_prints_what_results_json_has(tiny_run: Path, call):
    code, out, _ = call("digest", str(tiny_run))
    assert code == DONE and out.strip() == json.loads((tiny_run / "results.json").read_text())["params_sha256"]


def test_a_mistake_is_one_message(tmp_path: Path, call):
    code, _, err = call("digest", str(tmp_path))
    assert code == TO_MEND and err.startswith("error: ") and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "--from=folder:gs://bucket/x", "--to=out"],
        ["prepare", "--verify=gs://bucket/x"], ["report", "run", "--out=gs://bucket/page.html"],
        ["prepare", "--from=folder:img", "--to=out", "--drop-near-duplicates-of", "records:gs://bucket/x/train"],
        ["demo", "--workdir=gs://bucket/demo"], ["predict", "run", "gs://bucket/img"], ["predict", "run", "img", "--out=gs://b/p.csv"],
        ["export", "run", "--format=onnx", "--out=gs://bucket/p.onnx"], ["convert", "--from=run", "--to=gs://bucket/w.npz"],
    ],
)  # fmt: skip
def test_a_url_where_a_path_of_this_machine_is_needed_is_refused_and_makes_no_folder(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mixer_jax", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == TO_MEND and "and this must be a path of this machine" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def imported_by(code: str) -> set[str]:
    """What of ours, and JAX, a fresh process has imported after `code`."""
    code += "; import sys; print(*(name for name in sys.modules if name.split('.')[0] in ('mixer_jax', 'benchmarks', 'jax')))"
    return set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_imports_no_jax():
    assert imported_by("import mixer_jax; assert mixer_jax.__version__") == {"mixer_jax"}


def test_a_process_that_decodes_images_holds_no_library_for_buckets():
    code = "import sys, mixer_jax.data.sources.registry; sys.exit('tensorstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_tool_imports_its_room_and_what_is_below(tiny_run: Path):
    run = f"import sys; sys.argv[1:] = ['digest', {str(tiny_run)!r}]; from mixer_jax.__main__ import main; assert main() == 0"
    imported = imported_by(run)
    assert {"mixer_jax.checkpoints.cli", "jax"} <= imported
    rooms = ("benchmarks", "mixer_jax.planning", "mixer_jax.bench", "mixer_jax.report", "mixer_jax.export", "mixer_jax.training")
    assert not [name for name in imported if name.startswith(rooms)]


@pytest.mark.parametrize("command", ROOMS)
def test_a_command_is_found_in_its_room_without_what_runs(command: str):
    assert "jax" not in imported_by(f"from mixer_jax.__main__ import make_parser; make_parser([{command!r}])")
    assert command in re.findall(r"[\w-]+", make_parser([command]).format_usage())


def numeric_flags(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """(the words before, a flag) of every command that takes a number. Those of `prepare`: tests/preparation/test_refusals.py."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                found += numeric_flags(inner, (*words, name)) if name != "prepare" else []
        elif action.type not in (None, Path, local_path):
            found.append((words, action.option_strings[0]))
    return found


@pytest.mark.parametrize(("words", "flag"), numeric_flags(make_parser([])))
@pytest.mark.parametrize("value", ["-1", "1" + "0" * 30, "nan", "many"])
def test_a_number_that_cannot_be_is_refused_with_the_flags_name(words: tuple[str, ...], flag: str, value: str, capsys):
    with pytest.raises(SystemExit) as end:
        parse_tool(make_parser([]), [*words, f"{flag}={value}"])
    assert end.value.code == TO_MEND
    assert re.search(rf"error: argument {flag}: .*{value}", capsys.readouterr().err)


@pytest.mark.parametrize("command", NEED_CLONE)
def test_a_command_that_runs_files_of_a_clone_says_so_where_there_is_none(command: str, call, monkeypatch):
    monkeypatch.setattr("mixer_jax.app.IS_CLONE", False)
    code, out, err = call(command)
    assert (code, out) == (TO_MEND, "") and err.startswith(f"error: {command} needs a clone of the repository")
    assert err.count("\n") == 1


def test_the_formats_of_exports_are_those_that_are_written():
    assert tuple(FORMATS) == PROGRAMS and tuple(f".{name}" for name in WEIGHT_FILES) == tuple(SUFFIXES)


def test_the_old_name_of_an_option_is_understood_and_the_new_one_said(capsys):
    words = ["convert", "--from=a.npz", "--to=b.npz", "--layout=internal"]
    assert parse_tool(make_parser(words), words).format == "internal"
    assert capsys.readouterr().err == "--layout is now --format.\n"


def test_report_makes_one_page_of_any_run(tiny_run: Path, tmp_path: Path, call):
    page = tmp_path / "page.html"
    code, out, _ = call("report", str(tiny_run), f"--out={page}")
    assert code == DONE and out.strip() == str(page)
    assert page.read_text().lower().startswith("<!doctype html>")


def test_bench_takes_the_options_of_train(call, monkeypatch):
    monkeypatch.setattr(step, "measure_starts", lambda *_: {"compile_seconds": 1.0})  # a process each: tests/bench/test_step.py
    command = ["bench", "predict", "--config=tests/tiny_config.py", "--config.batch_size=8", "--config.model.num_blocks=1"]
    code, out, _ = call(*command, "--steps=1", "--json")
    figures = json.loads(out)
    assert code == DONE and figures["batch_size"] == 8 and figures["figures"].keys() == {"ours", "reference"}
    assert all(column["images_per_sec"] > 0 for column in figures["figures"].values())
    code, _, err = call(*command, "--config.batch_sise=8")
    assert code == TO_MEND and 'Did you mean "batch_size"' in err
    with pytest.raises(SystemExit):
        call("digest", "weights.npz", "--config.batch_size=8")


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (["step", "--beside-timm"], "python -m benchmarks.beside_timm step"),
        (["predict", "--beside-timm", "--beside-python", "python"], "python -m benchmarks.beside_timm predict"),
        (["input", "--beside=../big_vision", "--images=4"], "python -m benchmarks.beside_big_vision"),
        (["duplicates", "--source=folder:photos", "--json"], "python -m benchmarks.near_duplicates"),
        (["memory", "--records", "4096"], "python -m benchmarks.memory"),
        (["surgery"], "python -m benchmarks.surgery"),
    ],
)
def test_what_has_become_a_program_of_its_own_is_named_in_one_line(call, command, program):
    code, _, err = call("bench", *command)
    assert code == TO_MEND and program in err and len(err.splitlines()) == 1


def test_bench_input_ends_with_its_verdict(call, monkeypatch):
    monkeypatch.setattr(pipelines, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(input, "grain_measure", pipelines.our_measure)  # processes of its own: tests/bench/test_pipelines.py
    code, out, _ = call("bench", "input", "--config=tests/tiny_config.py", "--source=photographs", "--images=4")
    assert (
        code == DONE
        and out.startswith("stage")
        and "grain" in out
        and "ast enough: 8 x TPU v3 training S/2" in out.splitlines()[-1]
    )


def test_a_config_file_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"no config file nowhere\.py"):
        read_config("nowhere.py:B/16", [])


def test_weights_are_converted_verified_and_exported(tiny_run: Path, tmp_path: Path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("convert", f"--from={tiny_run}", "--to=w.npz")
    assert code == DONE and "identical, bit for bit" in out
    code, out, _ = call("weights", "verify", "w.npz")
    assert code == DONE and "Mixer-S/2" in out and "none of the four" in out
    code, out, _ = call("weights", "list")
    assert code == DONE and "imagenet21k/Mixer-L_16" in out
    code, out, _ = call("export", "w.npz", "--format=safetensors")
    assert code == DONE and (tmp_path / "w.safetensors").exists()
    shutil.copytree(tiny_run, "run")
    code, out, _ = call("export", "run/checkpoints/4", "--format=npz")
    assert code == DONE and (tmp_path / "run/run-4.npz").exists()
    code, out, _ = call("export", "w.npz", "--format=stablehlo", "--out=program")
    assert code == DONE and "loaded without this package: 0" in out and (tmp_path / "program").exists()
    code, _, _ = call("convert", "--from=w.npz", "--to=lr0.1")
    assert code == DONE and (tmp_path / "lr0.1/checkpoints").is_dir(), "a dot in a run's name is no ending"
    code, out, _ = call("digest", "lr0.1")
    assert code == DONE and len(out.strip()) == 64
    code, _, err = call("convert", "--from=w.npz", "--to=w.safetensors")
    assert code == TO_MEND and "exists already" in err
