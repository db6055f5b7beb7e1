"""Grain's `index_shuffle`: where a random permutation, never held in memory, puts one index.

`import grain` also imports JAX and Orbax, which processes that decode images do not need: that took 2.7 of the 3.5 seconds in
which loader.py was imported (2026-11-29, two busy cores). So Grain's extension module, which imports nothing, is loaded from its
file and registered under its own name: two copies of it in one process would crash at its end. A version of Grain that keeps the
module elsewhere is imported as a whole.
"""

import sys
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path

NAME = "grain._src.python.experimental.index_shuffle.python.index_shuffle_module"


def load_index_shuffle() -> Callable[..., int]:
    """Return the function, without importing Grain if that can be."""
    file = Path(find_spec("grain").origin).parents[1] / f"{NAME.replace('.', '/')}.so"
    if "grain" in sys.modules or not file.exists():
        from grain.experimental import index_shuffle  # heavy, and imported already or the only way

        return index_shuffle
    loader = ExtensionFileLoader(NAME, str(file))
    module = sys.modules[NAME] = module_from_spec(ModuleSpec(NAME, loader, origin=str(file)))
    loader.exec_module(module)
    return module.index_shuffle


index_shuffle = load_index_shuffle()
