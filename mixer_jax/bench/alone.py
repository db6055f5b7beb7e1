"""A function in a process of its own: what is measured there is not disturbed by what this process did before."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def alone(cache: str, function: Callable, *arguments):
    """function(*arguments) in a new process, whose cache folder is `cache`: of compiled programs and of verified shards."""
    with ProcessPoolExecutor(1, get_context("spawn"), _cache_in, (cache,)) as process:
        return process.submit(function, *arguments).result()


def _cache_in(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
