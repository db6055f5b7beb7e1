"""README and docs/: every command can be typed, and what they show is what the code has."""

import functools
import importlib
import inspect
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_config
from conftest import ROOT
from interop.drawn import BOUNDS
from PIL import Image

from mixer_jax.__main__ import make_parser
from mixer_jax.app import parse_tool
from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.config import dataset, flatten
from mixer_jax.export.program import load_stablehlo
from mixer_jax.models.registry import make_model
from mixer_jax.training.state import init_params

README = (ROOT / "README.md").read_text()
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {file.stem: file.read_text() for file in FILES}


def commands_of(page: str) -> list[list[str]]:
    """Return every indented line of a page that is a command, and every command within a line, split as a shell would."""
    text = re.sub(r"```.*?```", "", page.replace("\\\n", " "), flags=re.DOTALL)
    lines = [line.strip().split("#")[0] for line in text.splitlines() if line.startswith("    ")]
    inline = re.findall(r"`((?:\.venv/bin/)?python -m (?:mixer_jax|benchmarks\.\w+)[^`]*)`", text.replace("\n", " "))
    return [shlex.split(line) for line in [*lines, *inline] if line.strip()]


def wrapped(command: list[str]) -> list[str]:
    """Return the command that `sbatch --wrap='COMMAND'` runs on a node, before the shell there replaces variables."""
    return shlex.split(command[-1].removeprefix("--wrap="))


COMMANDS = {" ".join(command): command for page in PAGES.values() for command in commands_of(page)}


@functools.cache
def flags_of(program: str) -> str:
    return subprocess.run([sys.executable, program, "--helpfull"], cwd=ROOT, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_can_be_typed(text: str):
    command = COMMANDS[text]
    program = command[0].removeprefix(".venv/bin/")
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in command[1:] if "=" not in word} <= set(targets)
    elif command[1] in ("train.py", "evaluate.py"):
        known = flags_of(command[1]).replace("[no]", "")
        flags = dict(argument.removeprefix("--").partition("=")[::2] for argument in command[2:])
        options = {flag.removeprefix("config.") for flag in flags if flag.startswith("config.")}
        assert all(f"--{flag}" in known for flag in flags if not flag.startswith("config."))
        if "config" in flags:
            file, _, row = flags["config"].partition(":")
            assert options <= flatten(runpy.run_path(str(ROOT / file))["get_config"](row)).keys()
        else:
            assert command[1] == "evaluate.py" and not options
    elif command[1:3] == ["-m", "mixer_jax"] or program == "sbatch":
        typed = wrapped(command) if program == "sbatch" else command
        words = [word for word in typed[3:] if not word.startswith("[")]
        parse_tool(make_parser(words), words)
    elif command[1] == "-m" and command[2].startswith("benchmarks."):
        module = command[2] if (ROOT / f"{command[2].replace('.', '/')}.py").is_file() else f"{command[2]}.__main__"
        tool = importlib.import_module(module)
        if command[3:] or hasattr(tool, "make_parser"):
            parse_tool(tool.make_parser(), command[3:])
    elif program not in ("tar", "gunzip", "unzip"):  # tests/preparation/test_downloads.py types these.
        assert (
            command[:3] in (["python3", "-m", "venv"], ["gcloud", "storage", "rsync"])
            or command[0].endswith("tfds")
            or (ROOT / command[-1]).is_file()
        )


def test_the_docs_show_how_to_load_what_is_exported():
    assert inspect.getsource(load_stablehlo) in PAGES["weights"]


def test_the_docs_state_the_bounds_that_the_comparison_with_other_projects_asserts():
    for name, bounds in BOUNDS.items():
        (row,) = (line for line in PAGES["weights"].splitlines() if line.startswith(f"| {name} |"))
        stated = [cell.split()[0] if cell.strip() else None for cell in row.split("|")[2:4]]
        assert stated == [bound and str(bound) for bound in bounds]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with runs/photos, a run of two checkpoints on cats and dogs that has learned nothing, and its test images."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos/test" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/test/{name}/{number}.png")
            Image.fromarray(pixels).save(tmp_path / f"photos/test/{name}/{number}.jpg")
    config = tiny_config.get_config()
    config.num_classes, config.data = 2, dataset("folder:photos", "train")
    checkpoints = Checkpoints(str(tmp_path / "runs/photos"), keep=2)
    for step in (2, 4):
        params = init_params(make_model(config.model, 2), config.image_size, config.seed)
        checkpoints.save(step, {"params": params}, {"step": step, "class_names": ["cat", "dog"]})
    checkpoints.finish()
    (tmp_path / "runs/photos/config.json").write_text(config.to_json())
    return tmp_path


@pytest.mark.parametrize("page", ["python", "README"])
def test_the_examples_in_python_run_in_their_order(page: str, photos: Path, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    names = {"__name__": "example"}
    examples = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, f"{page}.md", "exec"), names)
    assert "cat" in capsys.readouterr().out


def test_the_readme_is_short_and_names_every_page():
    assert len(README.splitlines()) <= 160
    listed = PAGES["index"].partition("toctree")[2].split()
    for page in PAGES.keys() - {"README", "CONTRIBUTING", "index"}:
        assert page in listed
        assert f"](docs/{page}.md)" in README or page in ("developing", "changelog")


def test_the_rooms_are_shown():
    rooms = {entry.name for entry in (ROOT / "mixer_jax").iterdir() if entry.is_dir() and (entry / "__init__.py").exists()}
    assert all(f"  {room}/" in README for room in rooms)
