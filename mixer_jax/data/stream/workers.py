"""Threads, or processes, that fill the batches of a host. The memory that they fill: shared_memory.py.

One process of Python runs one thread at a time, but for what libraries do outside of it. Decoding and resizing are that, but not
all of the work: threads of one process stand in each other's way on two cores already, and processes do not (`python -m mixer_jax
bench input` measures either). Processes take time to start, and memory, which small data are not worth.
"""

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import cloudpickle

from mixer_jax.data.sources import shards
from mixer_jax.errors import EnvironmentFault


@contextmanager
def worker_pool(function: Callable, workers: int, processes: bool) -> Iterator[Callable]:
    """Yield submit(*arguments), which returns the future of function(*arguments). Work that has not begun is cancelled on exit.

    Raises EnvironmentFault when a process dies.
    """
    if processes:
        start_server()
        executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context("forkserver"), _initialize, (cloudpickle.dumps(function), workers)
        )
        function = _call_function
    else:
        executor = ThreadPoolExecutor(workers)
    try:
        yield lambda *arguments: executor.submit(function, *arguments)
    except BrokenProcessPool as error:
        for process in multiprocessing.active_children():  # or the executor would wait for them: they do not heed its SIGTERM
            process.kill()
        raise EnvironmentFault(
            "A process that decodes images has died; where memory is short the system kills them, and says so in its log. "
            "With fewer --config.loader.workers less is needed. The same command goes on from the last checkpoint."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def start_server() -> None:
    """Start the process that the workers are copies of, if it is not there yet: it imports what they need, once for all.

    Signals to the run do not reach the workers: at a SIGTERM the run saves and ends, and until then it needs batches.
    """
    # A new process imports the file that was started, such as train.py: do it here, once. A module that was started with -m is
    # not preloaded: each process runs a module of ours for itself, and would warn that it was there before.
    program = sys.modules["__main__"]
    name = "" if program.__spec__ else Path(getattr(program, "__file__", "")).stem
    multiprocessing.set_forkserver_preload(["mixer_jax.data.stream.loader", *filter(None, [name])])
    multiprocessing.resource_tracker.ensure_running()  # or it would be started below, and unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # which a new process inherits
    multiprocessing.forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _initialize(function: bytes, workers: int) -> None:
    """Prepare a new process for its work."""
    global _function
    threading.Thread(target=_end_with_parent, daemon=True).start()
    shards.sharing_processes = workers
    _function = cloudpickle.loads(function)


def _call_function(*arguments):
    return _function(*arguments)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
