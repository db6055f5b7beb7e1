"""Tests are stricter than production: eight virtual CPU devices, and implicit rank promotion raises.

There are many small programs, and compiling them takes longer than running them. So they are optimized less than in production,
unless XLA_FLAGS says otherwise (--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true).
"""

import os
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]  # train.py, evaluate.py and tiny_config.py

from programs import ROOT, XLA_FLAGS

os.environ["XLA_FLAGS"] = f"{XLA_FLAGS}8"
os.environ["JAX_PLATFORMS"] = "cpu"
signal.signal(signal.SIGINT, signal.default_int_handler)  # In the background, shells start programs with Ctrl-C ignored.

import jax
import pytest
from jaxtyping import install_import_hook
from ml_collections import ConfigDict
from slow import SLOW, is_slow
from tiny_config import get_config

# In tests, every call of the modules that compute with arrays is checked against the shapes and types in the annotations.
TRAINING = ("losses", "mixup", "optimizer", "schedule", "step")  # The other modules also take trees of shapes, and stand-ins.
ARRAY_MODULES = ["mixer_jax.models", *(f"mixer_jax.training.{name}" for name in TRAINING)]
install_import_hook(ARRAY_MODULES, "beartype.beartype")

import train
from mixer_jax.endings import DONE

pytest_plugins = ["stand_ins.fixtures"]
NOT_COLLECTED = [file for name in ("interop", "pods") for file in (ROOT / "tests" / name).glob("test_*.py")]

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests. If all tests are collected, refuse a row without a test, and more slow tests than a tenth of all."""
    slow = [item for item in items if any(is_slow(item.nodeid, row) for row in SLOW)]
    for item in slow:
        item.add_marker("slow")
    if len({item.path for item in items}) < len(list((ROOT / "tests").rglob("test_*.py"))) - len(NOT_COLLECTED):
        return
    unknown = [row for row in SLOW if not any(is_slow(item.nodeid, row) for item in slow)]
    if unknown or len(slow) > len(items) / 10:
        raise pytest.UsageError(
            f"tests/slow.py: {len(slow)} of {len(items)} tests, at most a tenth may be; no test is {unknown}."
        )


@pytest.fixture
def tiny_config() -> ConfigDict:
    return get_config()


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory) -> None:
    """Let all tests share their compiled programs, as the restarts of a run do: many train the same tiny model."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """Return the folder of a finished run of four steps. No test may change it."""
    config = get_config()
    config.total.steps = 4
    workdir = tmp_path_factory.mktemp("tiny_run")
    assert train.train(config, str(workdir)) == DONE
    return workdir
