"""Collects what code a process runs, with which versions. A run records them, and its hosts compare them."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import flatten, without_paths

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "opencv-python-headless", "ml_collections")
ROOT = Path(__file__).parents[2]
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # Environment variables with options of compilers.
BUNDLE_VARIABLE, COMMIT_VARIABLE = (
    "MIXER_JAX_BUNDLE",
    "MIXER_JAX_COMMIT",
)  # A launch sets these for the code that it sends, which has no Git.
PROGRAMS = ("train.py", "evaluate.py")  # They stand beside the package in a clone of the repository.


def program_facts(config: ConfigDict) -> dict[str, Any]:
    """Return what hosts compare before they touch data or devices: every option, all code, every version, compiler options.

    The paths of data and weights are left out, because a disk may be mounted at another path on each host. Data and weights are
    compared by their content elsewhere.
    """
    options = without_paths(flatten(config)) | {"init_from": bool(config.init_from)}
    return (
        {f"config.{name}": value for name, value in options.items()}
        | {f"code of {file}": digest for file, digest in code_digests().items()}
        | {f"version of {package}": version for package, version in versions().items()}
        | {"version of Python": platform.python_version()}
        | {name: os.environ.get(name, "") for name in VARIABLES}
    )


def versions() -> dict[str, str]:
    """Return {package: version} of the packages that a run depends on most."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def code_digests() -> dict[str, str]:
    """Return {file: digest} of the package's files and of the programs beside it. A digest is the first 12 digits of SHA-256."""
    files = [*(ROOT / "mixer_jax").rglob("*.py"), *(ROOT / name for name in PROGRAMS if (ROOT / name).is_file())]
    return {str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in sorted(files)}


def git_commit() -> str:
    """Return the Git commit of this code, followed by + if files have changed since, or "unknown" outside a checkout.

    For code that a launch has sent, it is the commit of the checkout that it comes from.
    """
    if commit := os.environ.get(COMMIT_VARIABLE):
        return commit
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def bundle_digest() -> str | None:
    """Return the SHA-256 of the file that a launch has sent this code in, or None for code that was not sent."""
    return os.environ.get(BUNDLE_VARIABLE)
