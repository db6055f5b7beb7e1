"""The notebook of examples/ runs from top to bottom, and is kept without outputs."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, XLA_FLAGS
from nbclient import NotebookClient

FILES = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_notebook_is_valid_and_holds_no_outputs(file: Path):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not [cell.id for cell in code if cell.outputs or cell.execution_count]
    for cell in code:
        compile(cell.source, cell.id, "exec")


def test_the_notebook_fine_tunes_predicts_and_looks_inside(tmp_path: Path, monkeypatch):
    for name in ("train.py", "configs", "mixer_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "examples").mkdir()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    environment = os.environ | {"XLA_FLAGS": f"{XLA_FLAGS}1", "IPYTHONDIR": str(tmp_path / "ipython")}
    notebook = nbformat.read(ROOT / "examples/finetune.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path / "examples"}})
    client.execute(env=environment)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(output.get("text", "") for output in outputs)
    assert float(re.search(r"([\d.]+)% of 359 images are right", shown)[1]) > 60
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert "warning" not in shown.lower() and "Prediction(" in str(outputs)
    assert (tmp_path / "runs/notebook/finetuned/results.json").exists()
    if folder := os.environ.get("MIXER_JAX_SHOW"):
        nbformat.write(notebook, Path(folder) / "finetune.ipynb")
