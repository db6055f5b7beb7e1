"""Worker processes import the loader: without JAX, which would take each of them seconds and memory."""

import subprocess
import sys

import pytest
from conftest import ROOT

HEAVY = ("jax", "flax", "orbax", "tensorflow", "tensorflow_datasets", "sklearn")
FILES = [file.relative_to(ROOT) for file in sorted((ROOT / "mixer_jax/data").rglob("*.py"))]
MODULES = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in FILES]
PROGRAM = """
import sys
import mixer_jax.data, {modules}
print(*(name for name in {heavy} if name in sys.modules))
"""


@pytest.mark.parametrize("modules", ["mixer_jax.data.stream.loader", ", ".join(MODULES)], ids=["loader", "all of data"])
def test_no_module_of_data_imports_jax(modules):
    program = PROGRAM.format(modules=modules, heavy=HEAVY)
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True).stdout == "\n"
