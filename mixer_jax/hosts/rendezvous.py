"""Lets the processes of a run meet at the coordinator's port, before JAX uses that port.

JAX crashes without a Python exception if the port is taken (SIGSEGV) or a process does not come (SIGABRT). So process 0 first
listens at the port itself. Each other process sends it one line, "mixer_jax PROCESS_ID NUM_PROCESSES", and gets these answers:

    wait         at once
    go           when all have come; process 0 has closed the port by then
    no REASON    if the processes cannot be joined
    late REASON  if a process has not come in time
"""

import contextlib
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import NoReturn

from mixer_jax.errors import EnvironmentFault, UserError, is_mistake

GREETING = "mixer_jax"
LINE_BYTES = 2000  # The limit of a line.
RETRY_SECONDS = 0.2
LINE_SECONDS = 5.0  # A process that has connected must send its line within this time.
LINGER_SECONDS = 3.0  # After a refusal, process 0 still refuses those who come within this time.
ANSWER_SECONDS = 30.0  # Process 0 answers within this time, even if it first waits for some that send nothing.
OTHER_SECONDS = 75.0  # The hosts of an earlier start end within 60 s (joining.py). Until then, another process may have the port.
MAX_SHOWN = 8  # How many numbers of processes a message lists.
ERRORS = {"no": UserError, "late": EnvironmentFault}


def meet(address: str, num_processes: int, process_id: int, timeout_seconds: float) -> None:
    """Wait until all processes of the run are there.

    Args:
        address: The HOST:PORT of process 0.
        num_processes: The number of processes.
        process_id: The number of this process.
        timeout_seconds: How long to wait for the others.

    Raises UserError for impossible or contradictory numbers or an impossible address, and EnvironmentFault for a taken port or
    missing processes.
    """
    if process_id == 0:
        _gather(*split_address(listening_address(address)), num_processes, timeout_seconds)
    else:
        _greet(*split_address(address), f"{GREETING} {process_id} {num_processes}", timeout_seconds)


def listening_address(address: str) -> str:
    """Return the HOST:PORT at which process 0, and after it JAX, listens for a coordinator at `address`.

    This is `address` itself if its HOST is an IP address of this machine. Otherwise it is all addresses of this machine, [::],
    because a name may mean another address here than on the other hosts. JAX_COORDINATOR_BIND_ADDRESS overrides both.
    """
    if bind_address := os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
        return bind_address
    host, port = split_address(address)
    try:
        with socket.socket(socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET) as probe:
            probe.bind((host, 0))
        return address
    except (ValueError, OSError):  # HOST is a name, or an address of another machine.
        return f"[::]:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT, where HOST may be an IPv6 address in brackets. Raises UserError for any other text."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={address}: it must be HOST:PORT of process 0, such as 10.0.0.1:8476.")
    return host.strip("[]"), int(port)


def _gather(host: str, port: int, num_processes: int, timeout_seconds: float) -> None:
    """Wait, as process 0, for all other processes."""
    deadline = time.monotonic() + timeout_seconds
    arrived: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as connections:
        with _listen(host, port) as server:
            if num_processes == 1:
                return
            for connection in _connections(server, deadline):
                connections.enter_context(connection)
                if refusal := _admit(connection, num_processes, arrived):
                    _refuse(server, [*arrived.values(), connection], refusal)
                if len(arrived) == num_processes - 1 and not any(map(_is_closed, arrived.values())):
                    break
            else:
                missing = _describe_missing(num_processes, arrived)
                _send_line(arrived.values(), f"late {missing}")
                raise EnvironmentFault(missing)
        _send_line(arrived.values(), "go")  # This comes after the port has been closed, so that JAX can listen at it.


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens where JAX will listen. Raises UserError or EnvironmentFault if it cannot."""
    all_addresses = host == "::"
    dual_stack = all_addresses and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual_stack or (":" in host and not all_addresses) else socket.AF_INET
    try:
        bind_host = "" if all_addresses else host
        return socket.create_server((bind_host, port), family=family, dualstack_ipv6=dual_stack, backlog=512)
    except OSError as error:
        kind = UserError if is_mistake(error) else EnvironmentFault
        raise kind(
            f"Process 0 cannot listen at port {port} of this machine ({os.strerror(error.errno)}). If another program has it, "
            "perhaps an earlier run, stop that one; or give all processes another port in --coordinator."
        ) from error


def _connections(server: socket.socket, deadline: float) -> Iterator[socket.socket]:
    """Yield the connections that come until the deadline."""
    while (seconds := deadline - time.monotonic()) > 0:
        server.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            yield server.accept()[0]


def _admit(connection: socket.socket, num_processes: int, arrived: dict[int, socket.socket]) -> str:
    """Read the greeting of a new connection, and keep the connection in `arrived`. Return why all must be refused, or "".

    A connection without our greeting is ignored. A process that was started again replaces its first connection, which is closed.
    """
    connection.settimeout(LINE_SECONDS)
    words = _read_line(connection).split()
    if len(words) != 3 or words[0] != GREETING or not all(word.isdecimal() for word in words[1:]):
        return ""
    process_id, count = map(int, words[1:])
    if count != num_processes:
        reason = f"process {process_id} was started with --num_processes={count}, and process 0 with {num_processes}"
    elif process_id == 0 or (process_id in arrived and not _is_closed(arrived[process_id])):
        reason = f"two were started with --process_id={process_id}"
    else:
        arrived[process_id] = connection
        _send_line([connection], "wait")
        return ""
    return f"The processes of this run cannot be joined: {reason}. Each needs a number of its own, and all the same count."


def _refuse(server: socket.socket, connections: Iterable[socket.socket], refusal: str) -> NoReturn:
    """Raise the refusal, after telling it to all processes that have come and to those that come within LINGER_SECONDS."""
    _send_line(connections, f"no {refusal}")
    for connection in _connections(server, time.monotonic() + LINGER_SECONDS):
        with connection:
            connection.settimeout(LINE_SECONDS)
            _read_line(connection)
            _send_line([connection], f"no {refusal}")
    raise UserError(refusal)


def _greet(host: str, port: int, greeting: str, timeout_seconds: float) -> None:
    """Tell process 0 that this one is there, and wait for its verdict. Raises UserError or EnvironmentFault for any but "go".

    The port may still belong to an earlier start of the run, whose hosts have not all ended. JAX answers there, not process 0.
    """
    deadline, other_until = time.monotonic() + timeout_seconds, None
    while (verdict := _ask(host, port, greeting, timeout_seconds, deadline))[0] != "go":
        if verdict[0] in ERRORS:
            raise ERRORS[verdict[0]](verdict[1])
        if other_until is None:
            other_until = min(deadline, time.monotonic() + OTHER_SECONDS)
            waiting = (
                f"What listens at {host}:{port} does not answer as process 0 of this run. Perhaps an earlier start is ending."
            )
            print(f"{waiting} Trying for {OTHER_SECONDS:g} s.", file=sys.stderr, flush=True)
        if time.monotonic() + RETRY_SECONDS > other_until:
            raise EnvironmentFault(
                f"What listens at {host}:{port} does not answer as process 0 of this run: it has ended, or another program has "
                "that port. See what process 0 says, or give all processes another port in --coordinator."
            )
        time.sleep(RETRY_SECONDS)


def _ask(host: str, port: int, greeting: str, timeout_seconds: float, deadline: float) -> tuple[str, str]:
    """Return the verdict of what listens at a port, and the reason for it. Raises EnvironmentFault if nothing does in time."""
    with _connect(host, port, timeout_seconds, deadline) as connection:
        _send_line([connection], greeting)
        connection.settimeout(ANSWER_SECONDS)
        verdict, _, reason = _read_line(connection).partition(" ")
        if verdict == "wait":
            connection.settimeout(timeout_seconds + ANSWER_SECONDS)  # Process 0 may have begun to wait later.
            verdict, _, reason = _read_line(connection).partition(" ")
    return verdict, reason


def _connect(host: str, port: int, timeout_seconds: float, deadline: float) -> socket.socket:
    """Return a connection to process 0. Try until the deadline: the process may start later, or its name may be known later.

    The deadline is that of a wait of `timeout_seconds`.
    """
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
    """Return a line, or "" if none comes in time. No byte after the line is read."""
    text = b""
    with contextlib.suppress(OSError):
        while not text.endswith(b"\n") and len(text) < LINE_BYTES and (byte := connection.recv(1)):
            text += byte
    return text.decode(errors="replace").strip()


def _send_line(connections: Iterable[socket.socket], line: str) -> None:
    """Send a line to all connections. Those that are closed are passed over."""
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(line.encode()[: LINE_BYTES - 1] + b"\n")


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the process at the other end has ended. A living process sends nothing while it waits for its answer."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(LINE_SECONDS)


def _describe_missing(num_processes: int, arrived: dict[int, socket.socket]) -> str:
    """Return the message about the processes that have not come, or have ended since."""
    numbers = [number for number in range(1, num_processes) if number not in arrived or _is_closed(arrived[number])]
    shown = ", ".join(map(str, numbers[:MAX_SHOWN])) + (", ..." if len(numbers) > MAX_SHOWN else "")
    return (
        f"{len(numbers)} of {num_processes} processes did not come in time (--join_timeout), those with --process_id {shown}. "
        "Start one on every host, with the same --coordinator and --num_processes, and let its port through firewalls."
    )
