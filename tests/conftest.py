"""Tests are stricter than production: eight virtual CPU devices, and implicit rank promotion raises.

The programs are small and many, so compiling takes longer than running: they are optimised less than in production, unless
XLA_FLAGS says otherwise (--xla_backend_optimization_level=3).
"""

import os
import sys
from pathlib import Path

XLA_FLAGS = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count="
os.environ["XLA_FLAGS"] = f"{XLA_FLAGS}8"
os.environ["JAX_PLATFORMS"] = "cpu"
ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # train.py and evaluate.py; tiny_config.py

import jax
import pytest
from jaxtyping import install_import_hook
from ml_collections import ConfigDict
from tiny_config import get_config

# In tests every call is checked against the shapes and types in the annotations of the modules that compute with arrays.
ARRAY_MODULES = ["mixer_jax.models", *(f"mixer_jax.training.{name}" for name in ("losses", "mixup", "step"))]
install_import_hook(ARRAY_MODULES, "beartype.beartype")

import train
from mixer_jax.app import DONE

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a whole collection of which more than a tenth is left to `make test-all`."""
    slow = sum(item.get_closest_marker("slow") is not None for item in items)
    if len(items) > 1000 and slow > len(items) / 10:
        raise pytest.UsageError(f"{slow} of {len(items)} tests are slow: at most a tenth may be left to `make test-all`.")


@pytest.fixture
def tiny_config() -> ConfigDict:
    return get_config()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The folder of a finished run of four steps. Read only."""
    config = get_config()
    config.total.steps = 4
    workdir = tmp_path_factory.mktemp("tiny_run")
    assert train.train(config, str(workdir)) == DONE
    return workdir
