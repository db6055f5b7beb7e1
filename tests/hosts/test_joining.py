"""If one host stops, the others stop too. Hosts that are done wait for each other."""

import atexit
import itertools
import os
import signal
import socket
import threading
import time

import pytest
from hosts.fake_board import FakeService

from mixer_jax.hosts import joining
from mixer_jax.hosts.joining import Membership


class Ended(BaseException):
    """The end of a process, which these tests raise instead of calling os._exit."""


SOCKETS = []  # Of all hosts. They are kept, because Python would complain about each that an ended thread leaves open.


@atexit.register
def forget_sockets() -> None:
    threading.excepthook = lambda _: None
    for end in itertools.chain(*SOCKETS):
        end.detach()


@pytest.fixture
def ends(monkeypatch):
    """Return {host: exit code} of the processes that have ended so far."""
    codes = {}

    def end(board, code, last):
        codes[board.host] = code
        raise Ended

    monkeypatch.setattr(joining, "_end", end)
    monkeypatch.setattr(joining, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(joining, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # Threads end with `Ended`.
    socketpair = socket.socketpair
    monkeypatch.setattr(joining.socket, "socketpair", lambda: SOCKETS.append(socketpair()) or SOCKETS[-1])
    handler = signal.getsignal(signal.SIGTERM)
    yield codes
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, handler)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stopping", [0, 2])
@pytest.mark.parametrize(("code", "of_others"), [(2, 2), (1, 1), (130, 1), (75, 1)])
def test_a_host_that_stops_ends_all_others_with_its_reason(ends, capsys, stopping, code, of_others):
    service = FakeService()
    hosts = [Membership(service.board(host, 3)) for host in range(3)]
    with pytest.raises(Ended):
        hosts[stopping].fail(code, "config.seed is -1")
    wait_until(lambda: len(ends) == 3)
    assert ends == {host: code if host == stopping else of_others for host in range(3)}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(line.startswith(f"error: host {stopping} (") for line in said)
    assert all(line.endswith("stopped: config.seed is -1") for line in said)
    signal.set_wakeup_fd(-1)
    hosts[stopping]._signals.close()  # This ends the thread. A real process would be gone.


def test_sigterm_ends_a_host_whatever_it_waits_for_and_the_others(ends):
    service = FakeService()
    others = Membership(service.board(0, 2))
    Membership(service.board(1, 2))  # Of several in one process, the last one gets the signal.
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until(lambda: len(ends) == 2)
    assert ends == {0: 1, 1: 143} and others


def test_hosts_wait_for_each_other_at_their_end_and_then_hear_nothing_more(ends):
    service = FakeService()
    hosts = [Membership(service.board(host, 2)) for host in range(2)]
    threads = [threading.Thread(target=host._board.meet_at_end, args=(10,)) for host in hosts[:1]]
    threads[0].start()
    hosts[1].leave()
    threads[0].join()
    assert not hosts[1]._watcher.is_alive() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    hosts[0]._signals.close()
    hosts[0]._watcher.join()
    assert not ends


def test_a_process_alone_has_nobody_to_tell(ends):
    handler = signal.getsignal(signal.SIGTERM)
    alone = Membership(None)
    alone.fail(2, "no such file")
    alone.leave()
    assert not ends and signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize(("host", "last", "waits"), [(0, True, True), (1, True, True), (1, False, False)])
def test_who_is_to_be_last_waits_until_the_others_know(monkeypatch, host, last, waits):
    exits, muted = [], []
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(os, "dup2", lambda *_: muted.append(True))
    monkeypatch.setattr(joining.sys, "stderr", joining.sys.__stderr__)
    service = FakeService()
    thread = threading.Thread(target=joining._end, args=(service.board(host, 2), 2, last))
    thread.start()
    if waits:
        time.sleep(0.1)
        assert not exits
    service.board(1 - host, 2).post(f"seen/{1 - host}", "")
    thread.join()
    assert exits == [2] and muted and service.board(0, 2).read(f"seen/{host}") == ""
