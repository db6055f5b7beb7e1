"""Joins separate processes as the hosts of one run, and ends all of them when one stops, whatever the reason."""

import contextlib
import faulthandler
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
from jax._src import distributed  # It is private: JAX has no public way to start its preemption service later than the rest.
from jax.errors import JaxRuntimeError

from mixer_jax.endings import STALLED, TO_MEND, TRY_AGAIN
from mixer_jax.errors import as_message
from mixer_jax.hosts.board import Board, find_board
from mixer_jax.hosts.cluster import find_distributed_arguments
from mixer_jax.hosts.rendezvous import listening_address, meet

HEARTBEAT_SECONDS = 45  # JAX ends all hosts when one has given no sign of life for this long, so within 60 s of its death.
POLL_SECONDS = 1.0
GRACE_SECONDS = 3.0  # When another host has stopped, a host has this long to come to an error of its own.
SEEN_SECONDS = 10.0  # The host that stops first, and host 0, then wait this long for the others to notice the stop.
END_SECONDS = 300.0  # A host that is done waits this long for the others.


def join(flags: FlagValues) -> "Membership":
    """Join this process to the other processes of the run, if there are any. Call it before anything touches a device.

    Raises UserError for impossible flags, and EnvironmentFault if the processes do not meet in time or a port is taken.
    """
    arguments = find_distributed_arguments(flags.distributed, flags.coordinator, flags.num_processes, flags.process_id)
    if arguments is None:
        return Membership(None)
    meet(*arguments, timeout_seconds=flags.join_timeout)
    # JAX's preemption service takes SIGTERM away from all other handlers. So it is off until the training loop, which asks the
    # service whether to stop, starts it (training/preemption.py).
    jax.config.update("jax_enable_preemption_service", False)
    bind_address = listening_address(arguments.coordinator)
    jax.distributed.initialize(
        *arguments,
        initialization_timeout=flags.join_timeout,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        coordinator_bind_address=bind_address,
    )
    return Membership(find_board())


def start_preemption_service() -> None:
    """Let JAX pass a SIGTERM on to all hosts from now on. Call it on every host."""
    if distributed.global_state.preemption_sync_manager is None:
        jax.config.update("jax_enable_preemption_service", True)
        distributed.global_state.initialize_preemption_sync_manager()


class Membership:
    """This process as one of the hosts of a run. A thread notices when another host stops, and when this one gets SIGTERM.

    The main thread cannot do that while it waits for another host, for example in a collective. If the other host has ended, JAX
    tells the waiting one after HEARTBEAT_SECONDS. If the other waits somewhere else, JAX never does. A Python handler of SIGTERM
    cannot run meanwhile either. But Python writes the numbers of signals to a socket, which the thread reads.
    """

    def __init__(self, board: Board | None):
        """Start the thread that watches `board`. None means that the run has only this process."""
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
                self._watcher.join()  # If the thread were in C++ code at the end of the interpreter, Python would crash.

    def fail(self, code: int, message: str) -> None:
        """Tell the other hosts why this one stops, and end this process without JAX's own shutdown, which waits for all hosts.

        Returns at once if this process is alone.
        """
        if self._board:
            _stop(self._board, code, message)

    def _watch(self, board: Board) -> None:
        """End this process when it gets SIGTERM, and when another host has stopped. Return when `leave` closes the socket."""
        while True:
            if select.select([self._wake], [], [], POLL_SECONDS)[0]:
                numbers = self._wake.recv(100)
                if not numbers:  # `leave` has closed the socket.
                    return
                if signal.SIGTERM in numbers:
                    _stop(board, 128 + signal.SIGTERM, "SIGTERM, while there was nothing to save")
            try:
                text = board.read("stopped")
            except JaxRuntimeError:  # If the coordinator is gone, JAX itself ends this process.
                continue
            stop = json.loads(text) if text else {"host": board.host}
            if stop["host"] != board.host:
                time.sleep(GRACE_SECONDS)
                message = f"error: host {stop['host']} ({stop['name']}) stopped: {stop['message']}"
                print(as_message(message), file=sys.stderr)
                if stop["code"] == STALLED:  # The cause may be on this host, for which the other one waited.
                    faulthandler.dump_traceback(sys.stderr)
                _end(board, TO_MEND if stop["code"] == TO_MEND else TRY_AGAIN, last=board.host == 0)


def warn_hosts(code: int, message: str) -> None:
    """Tell the other hosts of the run, if there are any, why this one is about to end, and wait until they have noticed."""
    if board := find_board():
        _post_stop(board, code, message)
        _wait_for_hosts(board)


def _leave_to_watcher(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM by doing nothing: the thread of `Membership` reads it from the socket, and ends the process."""


def _stop(board: Board, code: int, message: str) -> NoReturn:
    """Tell the other hosts why this one stops, and end this process when they have noticed."""
    _post_stop(board, code, message)
    _end(board, code, last=True)


def _post_stop(board: Board, code: int, message: str) -> None:
    """Tell the other hosts why this one stops."""
    text = json.dumps({"host": board.host, "name": platform.node(), "code": code, "message": message})
    with contextlib.suppress(JaxRuntimeError):
        board.post("stopped", text)


def _end(board: Board, code: int, last: bool) -> NoReturn:
    """End this process. If `last`, first wait until the other hosts know that the run stops.

    Two hosts must be last: host 0, because it runs the coordinator, without which JAX kills the others; and the host that stops
    first, because its end would raise an error in the collective in which the others wait.
    """
    _wait_for_hosts(board, wait=last)
    os._exit(code)


def _wait_for_hosts(board: Board, wait: bool = True) -> None:
    """Tell the other hosts that this one has noticed the stop, and, if asked to wait, do so until all have.

    From here on, standard error is discarded: what libraries write about the stop is of no use.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    with contextlib.suppress(JaxRuntimeError):
        board.post(f"seen/{board.host}", "")
        deadline = time.monotonic() + GRACE_SECONDS + SEEN_SECONDS
        waiting = set(range(board.num_hosts)) if wait else set()
        while waiting and time.monotonic() < deadline:
            waiting = {host for host in waiting if board.read(f"seen/{host}") is None}
            time.sleep(0.2 if board.host else 0.5)
