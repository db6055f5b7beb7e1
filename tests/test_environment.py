"""What the environment does to a program: variables that change numbers, folders that cannot be written, no home."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from mixer_jax import parallel
from mixer_jax.data.sources.receipts import Receipts
from mixer_jax.endings import TO_MEND, ending
from mixer_jax.environment import HARMLESS_VALUES, OFF, ON, check_environment
from mixer_jax.errors import UserError
from mixer_jax.hosts.compiled_programs import keep_compiled_programs
from mixer_jax.storage import cache_folder
from mixer_jax.workdir import check_workdir


@pytest.mark.parametrize("name", HARMLESS_VALUES)
def test_a_variable_that_changes_what_is_computed_is_refused_by_name(name):
    harmless, effect = HARMLESS_VALUES[name]
    for value in ("", *harmless, harmless[0].upper()):
        check_environment({name: value})
    for value in {*OFF, *ON, "strict", "rbg", "7"} - set(harmless):
        with pytest.raises(UserError, match=rf"has {name}={value}, which {effect}\. Unset it: unset {name}$"):
            check_environment({name: value})


def test_no_variable_and_others_are_no_obstacle():
    check_environment({})
    check_environment({"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest", "XLA_FLAGS": "--xla_x=1"})


def test_a_run_records_what_it_does_not_refuse(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_x=1")
    facts = parallel.device_facts(parallel.make_mesh(1))
    assert facts["variables"]["LIBTPU_INIT_ARGS"] == "--xla_x=1" and "XLA_FLAGS" in facts["variables"]
    assert facts["jax_options"]["jax_default_matmul_precision"] is None


@pytest.fixture
def refuse_all(monkeypatch):
    """Let this user write nowhere: root may, whatever chmod says."""
    monkeypatch.setattr("os.access", lambda *_: False)


@pytest.mark.parametrize(
    "variables",
    [{"XDG_CACHE_HOME": "/dev/null"}, {"XDG_CACHE_HOME": "/proc/x"}, {"HOME": "/dev/null"}, {"HOME": "/proc/x"}, {}],
    ids=str,
)
def test_without_a_cache_a_program_does_without(variables, monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not variables:  # and the user is in no list
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    updates = []
    monkeypatch.setattr("jax.config.update", lambda *update: updates.append(update[0]))
    assert cache_folder("verified") is None
    keep_compiled_programs()
    assert "jax_compilation_cache_dir" not in updates
    receipts = Receipts(tmp_path)
    receipts.add("shard", "sha", "stamp")
    receipts.save()


def test_a_cache_in_which_this_user_may_not_write_is_none(monkeypatch, tmp_path, refuse_all):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("verified") is None


def test_a_relative_folder_for_caches_is_ignored(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("verified") == tmp_path / "home/.cache/mixer_jax/verified"
    assert os.listdir(tmp_path) == ["home"]


def test_a_home_that_is_not_known_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(RuntimeError) as error:
        check_workdir("~/runs/a")
    assert ending(error.value) == (
        TO_MEND,
        "error: ~ stands for a home folder, and none is known: set HOME, or write whole paths.",
        True,
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{}/file", "file is there and is no folder"),
        ("{}/file/run", "file is there and is no folder"),
        ("{}/link", "link is there and is no folder"),
        ("{}/link/run", "link is there and is no folder"),
        ("/dev/null", "/dev/null is there and is no folder"),
        ("", "--workdir is empty"),
        ("s3://bucket/run", "of all buckets, only those of Google Cloud Storage"),
        ("{}/caf\udce9", r"caf\\udce9' is not read as UTF-8 here.*PYTHONUTF8=1"),
    ],
)
def test_a_folder_that_cannot_be_a_runs_is_refused_before_anything_is_done(path, reason, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match=reason):
        check_workdir(path.format(tmp_path))


def test_a_folder_that_nobody_may_write_in_is_refused(tmp_path, refuse_all):
    for path in (tmp_path, tmp_path / "a/b"):
        with pytest.raises(UserError, match=f"^--workdir={path}: you may not write in {tmp_path}\\."):
            check_workdir(str(path))


def test_a_folder_that_is_there_or_can_be_made_is_taken(tmp_path):
    assert check_workdir(str(tmp_path)) == tmp_path and check_workdir(f"{tmp_path}/a/b") == tmp_path / "a/b"
    assert not list(tmp_path.iterdir())


IMPORT = "import threading; from mixer_jax.environment import check_script\n"
SCRIPTS = {  # a script, and the line at its top level that each worker process would run anew
    "check_script()": 2,
    "x = 1\n\ncheck_script(\n)": 4,
    "def main():\n    check_script()\n\nmain()": 5,
    "for _ in range(1):\n    check_script()": 3,
    "if 1 > 0:\n    check_script()": 3,
    "thread = threading.Thread(target=check_script)\nthread.start()\nthread.join()": 0,  # refused in the thread, see below
    "if __name__ == '__main__':\n    check_script()": None,
    "def main():\n    check_script()\n\nif __name__ == '__main__':\n    main()": None,
    "if '__main__' == __name__:\n    x = 1\n    for _ in range(1):\n        check_script()": None,
    "__name__ == '__main__' and check_script()": None,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_every_worker_would_run_anew_is_told_what_to_write(script, tmp_path):
    file, line = tmp_path / "script.py", SCRIPTS[script]
    file.write_text(IMPORT + script)
    ended = subprocess.run([sys.executable, file], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if line is None:
        assert (ended.returncode, ended.stderr) == (0, "")
        return
    assert (ended.returncode == 1) == (line > 0)
    assert re.search(rf"UserError: Line {line or '.'} of {file} starts worker processes", ended.stderr)
    assert 'under `if __name__ == "__main__":`' in ended.stderr.splitlines()[-1]


def test_code_that_was_typed_is_imported_by_no_worker():
    code, options = IMPORT + "check_script()", {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True, "check": True}
    subprocess.run([sys.executable, "-c", code], **options)
    subprocess.run([sys.executable], input=code, **options)
