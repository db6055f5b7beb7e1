"""Processes meet at a port, or each ends with one message that says why they did not meet."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts import rendezvous
from mixer_jax.hosts.rendezvous import listening_address, meet, split_address


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def meet_all(*processes: tuple[int, int], seconds: float = 20, port: int | None = None, host: str = "localhost") -> list:
    """Call `meet` for each (process_id, num_processes) at the same time. Return for each None or the error that it raised."""
    address = f"{host}:{port or free_port()}"

    def ended(process: tuple[int, int]):
        try:
            return meet(address, process[1], process[0], seconds)
        except (UserError, EnvironmentFault) as error:
            return error

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(ended, processes))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", *(["[::1]"] if socket.has_dualstack_ipv6() else [])])
@pytest.mark.parametrize("num_processes", [1, 2, 16])
def test_processes_that_are_all_there_meet(num_processes, host):
    assert meet_all(*((i, num_processes) for i in range(num_processes)), host=host) == [None] * num_processes


@pytest.mark.parametrize(
    ("address", "listens"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("localhost:80", "[::]:80"),  # On other hosts, the name may mean another address.
        ("192.0.2.1:80", "[::]:80"),  # No machine has this address, as behind a service or a NAT.
    ],
)
def test_a_number_of_this_machine_is_listened_at_alone(address, listens, monkeypatch):
    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)
    assert listening_address(address) == listens
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "127.0.0.3:80")
    assert listening_address(address) == "127.0.0.3:80"


def test_nobody_is_heard_at_another_address_than_the_given_one():
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        alone = pool.submit(meet_all, (0, 2), seconds=2, port=port, host="127.0.0.1")
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))
        assert "did not come in time" in str(alone.result()[0])


@pytest.mark.parametrize(
    ("processes", "kind", "reason"),
    [
        ([(0, 3), (1, 3), (1, 3)], UserError, "two were started with --process_id=1"),
        ([(0, 3), (1, 3), (2, 4)], UserError, "process 2 was started with --num_processes=4, and process 0 with 3"),
        ([(0, 4), (2, 4)], EnvironmentFault, r"2 of 4 processes did not come .*--process_id 1, 3\."),
    ],
)
def test_processes_that_cannot_be_joined_are_told_why_all_of_them(processes, kind, reason, monkeypatch):
    monkeypatch.setattr(rendezvous, "LINGER_SECONDS", 0.3)
    ended = meet_all(*processes, seconds=1)
    assert {type(error) for error in ended} == {kind} and len({str(error) for error in ended}) == 1
    with pytest.raises(kind, match=reason):
        raise ended[0]


def test_of_many_that_are_missing_some_are_listed():
    (error,) = meet_all((0, 512), seconds=0.1)
    assert "511 of 512 processes" in str(error) and "1, 2, 3, 4, 5, 6, 7, 8, ..." in str(error)


@pytest.mark.parametrize("address", ["nowhere.invalid:1", "localhost:1"])
def test_a_process_0_that_is_not_found_is_said_with_the_reason(address):
    reason = "that name is not known here" if "invalid" in address else "nobody answers there"
    with pytest.raises(EnvironmentFault, match=rf"not found at {address} in 0\.3 s .*{reason}"):
        meet(address, 2, 1, 0.3)


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":80", "localhost:http", "localhost:0", "a:65536", "a:-1"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match="must be HOST:PORT"):
        split_address(address)


def test_an_address_may_have_a_name_or_numbers():
    assert split_address("tpu-0.pod:8476") == ("tpu-0.pod", 8476) and split_address("[::1]:8476") == ("::1", 8476)


@pytest.fixture
def other_program():
    """Return the port of a program that is not ours, which sends a greeting of its own to all that connect."""
    server = socket.create_server(("localhost", 0))

    def talk():
        while True:
            try:
                connection = server.accept()[0]
            except OSError:
                return
            connection.sendall(b"SSH-2.0\r\n")
            connection.close()

    threading.Thread(target=talk, daemon=True).start()
    with closing(server):
        yield server.getsockname()[1]


def test_a_port_that_another_program_has_is_said_by_all(other_program, monkeypatch, capfd):
    monkeypatch.setattr(rendezvous, "OTHER_SECONDS", 1)
    start = time.monotonic()
    taken, foreign = meet_all((0, 2), (1, 2), port=other_program)
    assert isinstance(taken, EnvironmentFault) and f"cannot listen at port {other_program}" in str(taken)
    assert isinstance(foreign, EnvironmentFault) and "does not answer as process 0 of this run" in str(foreign)
    assert time.monotonic() - start < 5 and capfd.readouterr().err.count("Trying for 1 s.") == 1


def test_a_process_waits_while_an_earlier_start_still_has_the_port():
    """A supervisor may start a process again before the other hosts have noticed that it was gone."""
    with socket.create_server(("localhost", 0)) as earlier, ThreadPoolExecutor(2) as pool:
        port = earlier.getsockname()[1]
        waiting = pool.submit(meet_all, (1, 2), port=port)
        earlier.accept()[0].close()
        assert not waiting.done()
        earlier.close()
        assert meet_all((0, 2), port=port) == waiting.result() == [None]


def test_who_does_not_greet_is_left_alone_and_who_comes_again_is_taken(monkeypatch):
    monkeypatch.setattr(rendezvous, "LINE_SECONDS", 0.2)
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(meet_all, (0, 3), port=port)
        for words in (b"GET / HTTP/1.1\r\n", b"", b"mixer_jax one 3\n", b"\xff" * 3000, b"mixer_jax 1 3\n"):
            with rendezvous._connect("localhost", port, 5, time.monotonic() + 5) as connection:
                connection.sendall(words)
                assert rendezvous._read_line(connection) == ("wait" if words.startswith(b"mixer_jax 1") else "")
        assert not waiting.done()
        assert meet_all((2, 3), (1, 3), port=port) == [None, None]
        assert waiting.result() == [None]


def test_the_port_is_free_when_they_have_met():
    port = free_port()
    assert meet_all((0, 2), (1, 2), port=port) == [None, None]
    socket.create_server(("", port)).close()
