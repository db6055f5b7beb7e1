"""From separate processes to the hosts of one run, and to one common end, however one of them comes to it."""

import contextlib
import json
import os
import platform
import select
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

import jax
from absl.flags import FlagValues
from jax._src import distributed  # private: JAX has no public way to start its preemption service later than the rest
from jax.errors import JaxRuntimeError

from mixer_jax.errors import as_message
from mixer_jax.hosts.board import Board, find_board
from mixer_jax.hosts.cluster import find_place
from mixer_jax.hosts.rendezvous import listening_address, meet

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
    bound_to = listening_address(place.coordinator)
    jax.distributed.initialize(*place, initialization_timeout=flags.join_timeout, coordinator_bind_address=bound_to)
    return Membership(find_board())


def start_preemption_service() -> None:
    """Let JAX spread a SIGTERM to all hosts, from now on. Call it on every host."""
    if distributed.global_state.preemption_sync_manager is None:
        jax.config.update("jax_enable_preemption_service", True)
        distributed.global_state.initialize_preemption_sync_manager()


class Membership:
    """This process as one of the hosts of a run. A thread tells the others when this one stops, and notices when another does.

    A host that waits for another, in a collective for example, cannot notice itself that the other has failed: JAX tells it after
    100 seconds if the other has ended, and never if that waits somewhere else. Nor can a Python handler of SIGTERM run meanwhile;
    but Python writes the numbers of signals to a socket, which the thread reads.
    """

    def __init__(self, board: Board | None):
        """Without a board, this process is alone."""
        self._board = board
        if board:
            self._wake, signals = socket.socketpair()
            signals.setblocking(False)
            self._signals = signals
            signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)
            signal.signal(signal.SIGTERM, _leave_to_watcher)
            self._watcher = threading.Thread(target=self._watch, args=(board,), daemon=True)
            self._watcher.start()

    def leave(self) -> None:
        """Wait until all hosts have come to their end."""
        if self._board:
            try:
                self._board.meet_at_end(END_SECONDS)
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.set_wakeup_fd(-1)
                self._signals.close()
                self._watcher.join()  # a thread in C++ code would crash the interpreter's end

    def fail(self, code: int, message: str) -> None:
        """Tell the other hosts why this one stops, and end this process without JAX's own end, which waits for all hosts.

        Returns at once where there are no others.
        """
        if self._board:
            _stop(self._board, code, message)

    def _watch(self, board: Board) -> None:
        while True:
            if select.select([self._wake], [], [], POLL_SECONDS)[0]:
                numbers = self._wake.recv(100)
                if not numbers:  # closed by `leave`
                    return
                if signal.SIGTERM in numbers:
                    _stop(board, 128 + signal.SIGTERM, "SIGTERM, while there was nothing to save")
            try:
                text = board.read("stopped")
            except JaxRuntimeError:  # if the coordinator is gone, JAX itself ends this process
                continue
            stop = json.loads(text) if text else {"host": board.host}
            if stop["host"] != board.host:
                time.sleep(GRACE_SECONDS)
                said = f"error: host {stop['host']} ({stop['name']}) stopped: {stop['message']}"
                print(as_message(said), file=sys.stderr)
                _end(board, MISTAKE if stop["code"] == MISTAKE else FAILED, last=board.host == 0)


def _leave_to_watcher(number: int, frame: FrameType | None) -> None:
    """Do nothing: the thread of `Membership` ends the process."""


def _stop(board: Board, code: int, message: str) -> NoReturn:
    """Tell the others why this host stops, and end it when they have noticed."""
    text = json.dumps({"host": board.host, "name": platform.node(), "code": code, "message": message})
    with contextlib.suppress(JaxRuntimeError):
        board.post("stopped", text)
    _end(board, code, last=True)


def _end(board: Board, code: int, last: bool) -> NoReturn:
    """End this process; if it is to be `last`, when the others know that the run stops.

    Host 0 is: it runs the coordinator, without which JAX kills the others. So is the one that stops first: its end would be an
    error of the collective in which the others wait. What libraries say about that from now on is of no use.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    with contextlib.suppress(JaxRuntimeError):
        board.post(f"seen/{board.host}", "")
        deadline = time.monotonic() + GRACE_SECONDS + SEEN_SECONDS
        waiting = set(range(board.num_hosts)) if last else set()
        while waiting and time.monotonic() < deadline:
            waiting = {host for host in waiting if board.read(f"seen/{host}") is None}
            time.sleep(0.2 if board.host else 0.5)
    os._exit(code)
