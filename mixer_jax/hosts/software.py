"""What code a process runs, and with which versions: for the records of a run, and for its hosts to compare."""

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
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # options of compilers
PROGRAMS = ("train.py", "evaluate.py")  # beside the package, in a clone


def program_facts(config: ConfigDict) -> dict[str, Any]:
    """Return what must be the same on all hosts before data or devices are touched: every option, all code, every version.

    Disks may be mounted in another place on each: data and weights are compared by what lies there.
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
    """Return {package: version}."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def code_digests() -> dict[str, str]:
    """Return {file: digest} of the package's files and of the programs beside it."""
    files = [*(ROOT / "mixer_jax").rglob("*.py"), *(ROOT / name for name in PROGRAMS if (ROOT / name).is_file())]
    return {str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in sorted(files)}


def git_commit() -> str:
    """Return the commit of this code, with + when files have changed since; "unknown" outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")
