"""From separate processes to the hosts of one run, and to one common end, however one of them comes to it."""

import json
import os
import platform
import sys
import threading
import time

import jax
from absl.flags import FlagValues
from jax._src import distributed  # private: JAX has no public way to start its preemption service later than the rest
from jax.errors import JaxRuntimeError

from mixer_jax.hosts.board import Board, find_board
from mixer_jax.hosts.cluster import find_place
from mixer_jax.hosts.rendezvous import meet

POLL_SECONDS = 1.0
GRACE_SECONDS = 3.0  # which a host has to come to an error of its own, after another has stopped
SEEN_SECONDS = 10.0  # which one who stops, and the one that runs the coordinator, give the others to take note
END_SECONDS = 300.0
MISTAKE, FAILED = 2, 1  # codes of app.py


def join(flags: FlagValues) -> "Membership":
    """Join this process to the others of the run, if there are any. Call before anything touches a device.

    Raises UserError and EnvironmentFault as `find_place` and `meet` do.
    """
    place = find_place(flags.distributed, flags.coordinator, flags.num_processes, flags.process_id)
    if place is None:
        return Membership(None)
    meet(*place, timeout_seconds=flags.join_timeout)
    # JAX's preemption service takes SIGTERM from everybody else. Only the training loop listens to it (training/preemption.py).
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(*place, initialization_timeout=flags.join_timeout)
    return Membership(find_board())


def start_preemption_service() -> None:
    """Let JAX spread a SIGTERM to all hosts, from now on. Call it on every host."""
    if distributed.global_state.preemption_sync_manager is None:
        jax.config.update("jax_enable_preemption_service", True)
        distributed.global_state.initialize_preemption_sync_manager()


class Membership:
    """This process as one of the hosts of a run. A thread watches whether another one has stopped.

    A host that waits for another, in a collective for example, cannot notice that this has failed: JAX tells it after 100 seconds
    of silence, and of one that waits somewhere else never.
    """

    def __init__(self, board: Board | None):
        """Without a board, this process is alone."""
        self._board = board
        self._left = threading.Event()
        if board:
            self._watcher = threading.Thread(target=self._watch, args=(board,), daemon=True)
            self._watcher.start()

    def leave(self) -> None:
        """Wait until all hosts have come to their end."""
        if self._board:
            try:
                self._board.meet_at_end(END_SECONDS)
            finally:
                self._left.set()
                self._watcher.join()  # a thread in C++ code would crash the interpreter's end

    def fail(self, code: int, message: str) -> None:
        """Tell the other hosts why this one stops, and end this process without JAX's own end, which waits for all hosts.

        Returns at once where there are no others.
        """
        if self._board:
            word = {"host": self._board.host, "name": platform.node(), "code": code, "message": message}
            try:
                self._board.post("stopped", json.dumps(word))
                self._board.post(f"seen/{self._board.host}", "")
                _wait_for_others(self._board)
            finally:
                _exit(code)

    def _watch(self, board: Board) -> None:
        while not self._left.wait(POLL_SECONDS):
            try:
                text = board.read("stopped")
            except JaxRuntimeError:  # the coordinator is gone, and JAX itself ends this process
                return
            word = json.loads(text) if text else {"host": board.host}
            if word["host"] != board.host:
                time.sleep(GRACE_SECONDS)
                print(f"error: host {word['host']} ({word['name']}) stopped: {word['message']}", file=sys.stderr, flush=True)
                try:
                    board.post(f"seen/{board.host}", "")
                    if board.host == 0:
                        _wait_for_others(board)
                finally:
                    _exit(MISTAKE if word["code"] == MISTAKE else FAILED)


def _wait_for_others(board: Board) -> None:
    """Wait until all hosts know that the run stops. Host 0 runs the coordinator, without which JAX kills the others."""
    deadline = time.monotonic() + GRACE_SECONDS + SEEN_SECONDS
    waiting = set(range(board.num_hosts))
    while waiting and time.monotonic() < deadline:
        waiting = {host for host in waiting if board.read(f"seen/{host}") is None}
        time.sleep(0.2 if board.host else 0.5)


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
