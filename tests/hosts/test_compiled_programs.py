"""Compiled programs are kept, and those that a kill left in part are replaced."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from conftest import ROOT

from mixer_jax.errors import UserError
from mixer_jax.hosts.compiled_programs import keep_compiled_programs

# Compiles two programs, of which one has a name that begins with that of the other.
COMPILE = """import sys
import jax
from mixer_jax.hosts.compiled_programs import keep_compiled_programs
keep_compiled_programs(sys.argv[1])
keep_compiled_programs(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
def square(x):
    return x @ x
def square_root(x):
    return x ** 0.5
x = jax.numpy.ones((3, 3))
print(float(jax.jit(square)(x)[0, 0]), float(jax.jit(square_root)(x)[0, 0]))
"""
DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:9] + bytes([content[9] ^ 255]) + content[10:],
}


def test_compiled_programs_are_kept_where_the_config_says(monkeypatch, tmp_path):
    updates = {}
    monkeypatch.setattr("jax.config.update", updates.__setitem__)
    keep_compiled_programs(str(tmp_path / "programs"))
    assert updates["jax_compilation_cache_dir"] == str(tmp_path / "programs") and (tmp_path / "programs").is_dir()
    with pytest.raises(UserError, match=r"config\.compilation_cache=/proc/x: you may not write there"):
        keep_compiled_programs("/proc/x")
    (tmp_path / "programs").chmod(0o777)
    with pytest.raises(UserError, match="Others may write in"):
        keep_compiled_programs(str(tmp_path / "programs"))


def compiled(folder: Path) -> str:
    """Compile in a new process, and return what it says."""
    run = subprocess.run([sys.executable, "-c", COMPILE, folder], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "3.0 1.0\n"), run.stderr
    return run.stderr


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """Return a folder of compiled programs."""
    folder = tmp_path_factory.mktemp("programs")
    assert compiled(folder) == ""
    return folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_program_is_replaced_and_no_other(damage, programs: Path):
    broken, other = (next(programs.glob(f"jit_{name}-*-cache")) for name in ("square", "square_root"))
    content, inode = broken.read_bytes(), other.stat().st_ino
    broken.write_bytes(damage(content))
    assert compiled(programs) == f"The compiled program jit_square in {programs} is damaged. It is compiled again.\n"
    assert broken.stat().st_size > len(content) / 2 and other.stat().st_ino == inode
    assert compiled(programs) == ""


def test_other_warnings_are_shown(monkeypatch, tmp_path: Path):
    shown = []
    monkeypatch.setattr("jax.config.update", lambda *_: None)
    monkeypatch.setattr("warnings.showwarning", lambda message, *_: shown.append(str(message)))
    keep_compiled_programs(str(tmp_path))
    (tmp_path / "jit_step-1-cache").touch()
    for text in ("Error writing persistent compilation cache entry for 'jit_step': No space left on device", "jit_step"):
        warnings.showwarning(text, UserWarning, __file__, 1)
        assert shown[-1] == text
    assert (tmp_path / "jit_step-1-cache").exists()
