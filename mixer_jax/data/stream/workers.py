"""The threads or processes that fill the batches of a host. shared_memory.py provides the memory that they fill.

In a process, Python runs one thread at a time, except while libraries work outside Python. Decoding and resizing are such work,
but the rest is not, so threads already block each other on two cores. Processes do not. `python -m mixer_jax bench input` can
measure both. Processes need time to start and more memory, which does not pay off for small data.
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
from mixer_jax.errors import EnvironmentFault, UserError, is_mistake


@contextmanager
def worker_pool(function: Callable, workers: int, processes: bool) -> Iterator[Callable]:
    """Yield submit(*arguments), which returns the future of function(*arguments). Pending work is canceled on exit.

    Raises EnvironmentFault if a worker process dies, and UserError or EnvironmentFault if none can be started.
    """
    if processes:
        with _starting():
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
        for process in multiprocessing.active_children():
            process.kill()  # The executor would wait for the workers forever, because they block its SIGTERM.
        raise EnvironmentFault(
            "A process that decodes images has died. If memory is short, the system kills such processes and says so in its log. "
            "With fewer --config.loader.workers less memory is needed. What was saved is kept: start the same command again."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _starting() -> Iterator[None]:
    """Raise UserError or EnvironmentFault, with what to do, if processes cannot be started in this context."""
    try:
        yield
    except OSError as error:
        kind = UserError if is_mistake(error) or not error.errno else EnvironmentFault
        raise kind(
            f"Worker processes cannot be started ({error}). They need a folder for temporary files (TMPDIR, a short path) and "
            "/dev/shm, both with room and to be written in. --config.loader.processes=false decodes in threads, without either."
        ) from error


def start_server() -> None:
    """Start the fork server, the process that the workers are forked from, unless it is running.

    It imports what the workers need, once for all of them. It blocks SIGINT and SIGTERM, and the workers inherit this: when the
    run receives SIGTERM, it still needs batches until it has saved.
    """
    # A new process imports the file that was started, such as train.py, so the server imports it once for all. A module that was
    # started with -m is not preloaded: each process runs such a module itself, and would warn that it had been imported before.
    program = sys.modules["__main__"]
    name = "" if program.__spec__ else Path(getattr(program, "__file__", "")).stem
    multiprocessing.set_forkserver_preload(["mixer_jax.data.stream.loader", *filter(None, [name])])
    # The fork server would otherwise start the resource tracker below, and that start would unblock the two signals.
    multiprocessing.resource_tracker.ensure_running()
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def _initialize(function: bytes, workers: int) -> None:
    """Prepare a new worker process to call the pickled `function`; `workers` processes share the limit on open shards."""
    global _function
    threading.Thread(target=_end_with_parent, daemon=True).start()
    shards.sharing_processes = workers
    _function = cloudpickle.loads(function)


def _call_function(*arguments):
    return _function(*arguments)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
