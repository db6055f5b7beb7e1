"""A function in a new process: what is measured there is not disturbed by what this process did before."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def run_in_fresh_process(cache: str, function: Callable, *arguments):
    """Return function(*arguments) from a new process, with `cache` as the folder of compiled programs and verified shards."""
    with ProcessPoolExecutor(1, get_context("spawn"), _set_cache, (cache,)) as process:
        return process.submit(function, *arguments).result()


def _set_cache(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
