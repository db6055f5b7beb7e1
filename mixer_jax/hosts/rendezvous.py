"""The processes of a run meet at the coordinator's port before JAX uses it.

JAX ends without a Python exception when the port is taken (SIGSEGV) or a process does not come (SIGABRT). So process 0 listens at
that port first, and each of the others sends it one line: "mixer_jax PROCESS_ID NUM_PROCESSES". It answers "wait" at once. When
all have come, it closes the port and then answers "go". It answers "no REASON" when the processes cannot be joined, and "late
REASON" when one has not come in time.
"""

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import NoReturn

from mixer_jax.errors import EnvironmentFault, UserError, is_mistake

GREETING = "mixer_jax"
LINE_BYTES = 2000
RETRY_SECONDS = 0.2
LINE_SECONDS = 5.0  # one who has connected says its line in this time
LINGER_SECONDS = 3.0
ANSWER_SECONDS = 30.0  # process 0 answers in this time, also when it first waits for some that say nothing
MAX_SHOWN = 8  # numbers of processes in a message
ERRORS = {"no": UserError, "late": EnvironmentFault}


def meet(address: str, num_processes: int, process_id: int, timeout_seconds: float) -> None:
    """Return when all processes of the run are there. `address` is the HOST:PORT of process 0.

    Raises UserError for numbers or an address that cannot be, and EnvironmentFault for a taken port and missing processes.
    """
    if process_id == 0:
        _gather(*split_address(listening_address(address)), num_processes, timeout_seconds)
    else:
        _report(*split_address(address), f"{GREETING} {process_id} {num_processes}", timeout_seconds)


def listening_address(address: str) -> str:
    """Return the HOST:PORT at which process 0 listens, and JAX after it: that of the coordinator, if HOST is a number of this
    machine. A name may mean another address here than elsewhere; then it is every address of this machine, [::].
    """
    if bound_to := os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
        return bound_to
    host, port = split_address(address)
    try:
        with socket.socket(socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET) as probe:
            probe.bind((host, 0))
        return address
    except (ValueError, OSError):  # a name, or an address that is not here
        return f"[::]:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT, where HOST may be an IPv6 address in brackets. Raises UserError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={address}: it must be HOST:PORT of process 0, such as 10.0.0.1:8476.")
    return host.strip("[]"), int(port)


def _gather(host: str, port: int, num_processes: int, timeout_seconds: float) -> None:
    """Wait as process 0 for all others."""
    deadline = time.monotonic() + timeout_seconds
    came: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as connections:
        with _listen(host, port) as server:
            if num_processes == 1:
                return
            for connection in _connections(server, deadline):
                connections.enter_context(connection)
                if refusal := _admit(connection, num_processes, came):
                    _refuse(server, [*came.values(), connection], refusal)
                if len(came) == num_processes - 1 and not any(map(_is_gone, came.values())):
                    break
            else:
                missing = _missing(num_processes, came)
                _answer(came.values(), f"late {missing}")
                raise EnvironmentFault(missing)
        _answer(came.values(), "go")  # only now: the port is free again


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens where JAX will."""
    everywhere = host == "::"
    both = everywhere and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or (":" in host and not everywhere) else socket.AF_INET
    try:
        return socket.create_server(("" if everywhere else host, port), family=family, dualstack_ipv6=both, backlog=512)
    except OSError as error:
        kind = UserError if is_mistake(error) else EnvironmentFault
        raise kind(
            f"Process 0 cannot listen at port {port} of this machine ({os.strerror(error.errno)}). If another program has it, "
            "perhaps an earlier run, stop that one; or give all processes another port in --coordinator."
        ) from error


def _connections(server: socket.socket, deadline: float) -> Iterator[socket.socket]:
    while (seconds := deadline - time.monotonic()) > 0:
        server.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            yield server.accept()[0]


def _admit(connection: socket.socket, num_processes: int, came: dict[int, socket.socket]) -> str:
    """Read the line of one that connects, and keep its connection in `came`. Return why all must be refused, or "".

    One that does not greet as we do is left alone. One that comes again, after its process was started anew, replaces the first.
    """
    connection.settimeout(LINE_SECONDS)
    words = _read_line(connection).split()
    if len(words) != 3 or words[0] != GREETING or not all(word.isdecimal() for word in words[1:]):
        return ""
    process_id, count = map(int, words[1:])
    if count != num_processes:
        reason = f"process {process_id} was started with --num_processes={count}, and process 0 with {num_processes}"
    elif process_id == 0 or (process_id in came and not _is_gone(came[process_id])):
        reason = f"two were started with --process_id={process_id}"
    else:
        came[process_id] = connection
        _answer([connection], "wait")
        return ""
    return f"The processes of this run cannot be joined: {reason}. Each needs a number of its own, and all the same count."


def _refuse(server: socket.socket, connections: Iterable[socket.socket], refusal: str) -> NoReturn:
    """Raise the refusal, after all who are there, and those who come a moment later, have been told."""
    _answer(connections, f"no {refusal}")
    for connection in _connections(server, time.monotonic() + LINGER_SECONDS):
        with connection:
            connection.settimeout(LINE_SECONDS)
            _read_line(connection)
            _answer([connection], f"no {refusal}")
    raise UserError(refusal)


def _report(host: str, port: int, greeting: str, timeout_seconds: float) -> None:
    """Say to process 0 that this one is there, and wait for its answer."""
    with _connect(host, port, timeout_seconds) as connection:
        _answer([connection], greeting)
        connection.settimeout(ANSWER_SECONDS)
        verdict, _, reason = _read_line(connection).partition(" ")
        if verdict == "wait":
            connection.settimeout(timeout_seconds + ANSWER_SECONDS)  # process 0 may have begun to wait later than this one
            verdict, _, reason = _read_line(connection).partition(" ")
    if verdict in ERRORS:
        raise ERRORS[verdict](reason)
    if verdict != "go":
        raise EnvironmentFault(
            f"What listens at {host}:{port} does not answer as process 0 of this run: it has ended, or another program has that "
            "port. See what process 0 says, or give all processes another port in --coordinator."
        )


def _connect(host: str, port: int, timeout_seconds: float) -> socket.socket:
    """Try again until the deadline: process 0 may start later, and its name may be known later."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(0.1, min(LINE_SECONDS, deadline - time.monotonic())))
        except socket.gaierror as error:
            reason = f"that name is not known here ({error.strerror})"
        except OSError as error:
            reason = f"nobody answers there ({error.strerror or error})"
        if time.monotonic() + RETRY_SECONDS > deadline:
            raise EnvironmentFault(
                f"Process 0 was not found at {host}:{port} in {timeout_seconds:g} s (--join_timeout): {reason}. Start it there, "
                "with the same --coordinator, and let its port through firewalls."
            )
        time.sleep(RETRY_SECONDS)


def _read_line(connection: socket.socket) -> str:
    """Return a line, or "" if none comes in time. Not a byte behind it is read."""
    text = b""
    with contextlib.suppress(OSError):
        while not text.endswith(b"\n") and len(text) < LINE_BYTES and (byte := connection.recv(1)):
            text += byte
    return text.decode(errors="replace").strip()


def _answer(connections: Iterable[socket.socket], line: str) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(line.encode()[: LINE_BYTES - 1] + b"\n")


def _is_gone(connection: socket.socket) -> bool:
    """Whether the process at the other end has ended: it says nothing more before it is answered."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(LINE_SECONDS)


def _missing(num_processes: int, came: dict[int, socket.socket]) -> str:
    numbers = [number for number in range(1, num_processes) if number not in came or _is_gone(came[number])]
    shown = ", ".join(map(str, numbers[:MAX_SHOWN])) + (", ..." if len(numbers) > MAX_SHOWN else "")
    return (
        f"{len(numbers)} of {num_processes} processes did not come in time (--join_timeout), those with --process_id {shown}. "
        "Start one on every host, with the same --coordinator and --num_processes, and let its port through firewalls."
    )
