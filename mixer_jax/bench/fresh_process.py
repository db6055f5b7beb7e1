"""Runs a function in a new process, where no earlier work disturbs what the function measures."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def run_in_fresh_process(cache: str, function: Callable, *arguments):
    """Return function(*arguments), called in a new process. Its cache of compiled programs and verified shards is in `cache`."""
    with ProcessPoolExecutor(1, get_context("spawn"), _set_cache, (cache,)) as process:
        return process.submit(function, *arguments).result()


def _set_cache(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
