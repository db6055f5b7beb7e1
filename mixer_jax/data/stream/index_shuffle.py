"""Grain's `index_shuffle`, which maps one index by a random permutation that is never held in memory.

`import grain` also imports JAX and Orbax, which the processes that decode images do not need. This import took 2.7 of the 3.5
seconds that the import of loader.py took (2026-11-29, two busy cores). Here, Grain's extension module, which imports nothing, is
loaded from its file instead. It is registered under its usual name, because two copies of it in one process would crash when the
process ends. If a version of Grain keeps the module elsewhere, all of Grain is imported.
"""

import sys
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path

NAME = "grain._src.python.experimental.index_shuffle.python.index_shuffle_module"


def load_index_shuffle() -> Callable[..., int]:
    """Return Grain's function `index_shuffle`, if possible without importing all of Grain."""
    file = Path(find_spec("grain").origin).parents[1] / f"{NAME.replace('.', '/')}.so"
    if "grain" in sys.modules or not file.exists():
        from grain.experimental import index_shuffle  # Grain is heavy, but here it is already imported, or there is no other way.

        return index_shuffle
    loader = ExtensionFileLoader(NAME, str(file))
    module = sys.modules[NAME] = module_from_spec(ModuleSpec(NAME, loader, origin=str(file)))
    loader.exec_module(module)
    return module.index_shuffle


index_shuffle = load_index_shuffle()
