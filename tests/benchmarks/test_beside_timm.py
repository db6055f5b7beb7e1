"""timm is a contestant that does the same work as ours, and messages say what is missing for the comparison."""

import json
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import beside_timm
from benchmarks.beside_timm import require_same_device, settings, timm
from mixer_jax import app, endings
from mixer_jax.bench import step
from mixer_jax.bench.contestants import Contestant
from mixer_jax.errors import UserError

PEER = """#!{python}
import sys
import time
sys.path[0] = {root!r}
from mixer_jax.worker_process import serve
serve(lambda question: {{"device": "cpu"}} if question == "start" else {{"clock": 8.0 * question, "cpu": 1e-9}})
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    """Return a program in place of Python, whose timm claims that a step takes eight seconds."""
    file = tmp_path / "python"
    file.write_text(PEER.format(python=sys.executable, root=str(ROOT)))
    file.chmod(0o700)
    return str(file)


def test_timm_is_one_of_the_contestants(python, monkeypatch, capsys):
    contestant = Contestant(lambda count: time.sleep(0.001 * count), 1e9, 0.0)
    monkeypatch.setattr(step, "make_contestant", lambda *_: contestant)
    monkeypatch.setattr(step, "measure_starts", lambda *_: {"compile_seconds": 3.0, "peak_memory_mib": 700})
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    options = ["--config=tests/tiny_config.py", "--config.model.num_blocks=1", f"--python={python}", "--steps=1", "--json"]
    assert app.run_tool(beside_timm.make_parser(), ["predict", *options]) == endings.DONE
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert list(figures) == ["ours", "reference", "timm"]
    assert figures["timm"]["images_per_sec"] == 2 and figures["timm"]["ours_is_times_as_fast"] > 100
    assert figures["timm"]["peak_memory_mib"] > 0


def test_what_timm_is_asked_for_is_what_the_config_says(tiny_config):
    asked = settings("step", tiny_config)
    assert (asked["patch_size"], asked["num_blocks"], asked["tokens_mlp_dim"], asked["channels_mlp_dim"]) == (2, 2, 8, 32)
    assert (asked["mixup"], asked["loss"], asked["optimizer"], asked["clip_norm"]) == (0.2, "softmax", "adam", 1.0)


@pytest.mark.parametrize(
    ("family", "python", "message"),
    [
        ("vit", sys.executable, "compared with Mixers, and config.model.family is vit"),
        ("mixer", "/no/python", "/no/python cannot be run: No such file.*make test-interop"),
        ("mixer", sys.executable, "does not run timm: ImportError: no PyTorch here.*make test-interop"),
    ],
)
def test_what_is_missing_for_timm_is_one_message(tiny_config, tmp_path: Path, monkeypatch, family, python, message):
    (tmp_path / "torch.py").write_text("raise ImportError('no PyTorch here')")
    monkeypatch.chdir(tmp_path)  # Python imports from the current folder first.
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    tiny_config.model.family = family
    with pytest.raises(UserError, match=message), timm(python, "step", tiny_config):
        pass


def test_another_device_than_pytorchs_is_refused():
    require_same_device("cpu")
    with pytest.raises(UserError, match=r"JAX computes on cpu and PyTorch on cuda.*CUDA_VISIBLE_DEVICES="):
        require_same_device("cuda")
