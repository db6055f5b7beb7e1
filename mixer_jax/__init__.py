"""MLP-Mixer (arXiv 2105.01601) in JAX: pre-training on TPU pods, fine-tuning and evaluation. README.md has the room map.

`mixer_jax.load(PATH)` returns a trained model (api.py). Importing this package or mixer_jax.data imports no jax, because the
worker processes that decode images do it.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Model", "Prediction", "UserError", "load"]


def __getattr__(name: str) -> Any:
    """Return a name of the Python API, which is imported when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    """Return the names for completion."""
    return sorted([*globals(), *__all__])
