"""Checks that all hosts of a run have the same config, code, packages, devices, data and folder.

Each host posts its facts by name on the message board (board.py). Host 0 compares them with its own, and posts the verdict. If
the facts differ, every host raises the verdict as an error. Only what is not among the facts may differ: the names of the
machines, the numbers of the processes, and the paths under which --workdir, data and weights are mounted.
"""

import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts.board import Board, find_board

DISK_SECONDS = 5.0  # For the token that shows that all hosts have the same folder.
NOTICE_SECONDS = 60.0  # Host 0 prints this often which host it waits for.
TIMEOUT_SECONDS = 3600.0  # It is long, because hosts may still be opening their data: comparing digests of all shards takes time.
MAX_FIELDS, MAX_VALUES, MAX_HOSTS, MAX_TEXT = 8, 3, 4, 200  # Limits of a message. The last one is in characters.

Facts = dict[str, Any]  # Values that JSON can hold, by name.


def agree(topic: str, facts: Callable[[], Facts], timeout_seconds: float = TIMEOUT_SECONDS, board: Board | None = None) -> None:
    """Check that `facts()` returns the same on all hosts. Does nothing, and does not call `facts`, in a run of one process.

    All hosts must call this with the same topics in the same order.

    Args:
        topic: What the facts are about, for messages.
        facts: Returns the facts of this host.
        timeout_seconds: How long host 0 waits for the facts of the others.
        board: The board of this host, for tests.

    Raises UserError, with the same text on every host, if the facts differ, and EnvironmentFault if the facts of a host, or the
    verdict of host 0, do not come in time.
    """
    board = board or find_board()
    if board is None:
        return
    name = f"agreement {next(board.agreements)}"
    board.post(f"{name}/{board.host}", json.dumps({"machine": platform.node(), "facts": facts()}))
    if board.host == 0:
        board.post(f"{name}/verdict", _compare_all(board, name, topic, timeout_seconds))
    verdict = board.wait(f"{name}/verdict", timeout_seconds + 60)
    if verdict is None:
        raise EnvironmentFault(f"Host 0 has not compared the {topic} of all hosts in {timeout_seconds:g} s. See what it says.")
    if verdict:
        raise UserError(verdict)


def agree_on_folder(name: str, read: Callable[[], str | None], token: str | None, board: Board | None = None) -> None:
    """Check that all hosts name the same folder. Does nothing in a run of one process.

    Args:
        name: The folder, as this host spells it.
        read: Reads the token in the folder. All hosts must read there what host 0 has written.
        token: The token on host 0, None on the others.
        board: The board of this host, for tests.

    Raises UserError, with the same text on every host, if the folders differ, and EnvironmentFault if a host does not answer in
    time.
    """
    board = board or find_board()
    if board is None:
        return
    post = f"agreement {next(board.agreements)}/token"
    if token is not None:
        board.post(post, json.dumps([name, token]))
    text = board.wait(post, TIMEOUT_SECONDS)
    if text is None:
        raise EnvironmentFault(f"Host 0 has not opened its --workdir in {TIMEOUT_SECONDS:g} s. See what it says.")
    name_on_host_0, token_of_host_0 = json.loads(text)
    is_same = _reads_soon(read, token_of_host_0)
    folder = name_on_host_0 if is_same else f"{name}, which is another folder or not on a disk that both share,"
    agree("folder", lambda: {"--workdir": folder}, board=board)


def _compare_all(board: Board, name: str, topic: str, timeout_seconds: float) -> str:
    """Return, on host 0, the verdict about the facts that all hosts post. Raises EnvironmentFault if some do not come in time."""
    deadline = time.monotonic() + timeout_seconds
    texts = [_wait_for(board, f"{name}/{host}", f"the {topic} of host {host}", deadline) for host in range(board.num_hosts)]
    missing = [host for host, text in enumerate(texts) if text is None]
    if missing:
        raise EnvironmentFault(
            f"Nothing came from {_format_hosts(missing)} in {timeout_seconds:g} s ({topic}). See the messages there."
        )
    posts = [json.loads(text) for text in texts if text is not None]
    return compare([post["facts"] for post in posts], [post["machine"] for post in posts])


def _wait_for(board: Board, name: str, description: str, deadline: float) -> str | None:
    """Return a text of the board, or None at the deadline. Print every NOTICE_SECONDS what this host waits for."""
    while (seconds := deadline - time.monotonic()) > 0:
        if (text := board.wait(name, min(seconds, NOTICE_SECONDS))) is not None:
            return text
        print(f"Waiting for {description}.", flush=True)
    return None


def _reads_soon(read: Callable[[], str | None], token: str) -> bool:
    """Return whether `read` returns the token within DISK_SECONDS: a network disk may show late what was written."""
    deadline = time.monotonic() + DISK_SECONDS
    while read() != token:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def compare(facts: list[Facts], machines: list[str]) -> str:
    """Return a message with one line for each name whose value differs between the hosts, or "" if all facts are the same.

    `facts` and `machines` have the facts and the machine's name of each host, in order.
    """
    names = dict.fromkeys(field for host_facts in facts for field in host_facts)
    fields = [field for field in names if _values_differ(facts, field)]
    if not fields:
        return ""
    lines, mentioned = [], {0}
    for field in fields[:MAX_FIELDS]:
        hosts_of_value = defaultdict(list)
        for host, host_facts in enumerate(facts):
            hosts_of_value[_value_text(host_facts, field)].append(host)
        shown = list(hosts_of_value.items())[:MAX_VALUES]
        mentioned |= {host for _, hosts in shown for host in hosts[:MAX_HOSTS]}
        more = f", and {len(hosts_of_value) - MAX_VALUES} other values" if len(hosts_of_value) > MAX_VALUES else ""
        lines.append(
            f"\n  {field}: " + ", ".join(f"{_shorten(value)} on {_format_hosts(hosts)}" for value, hosts in shown) + more
        )
    if len(fields) > MAX_FIELDS:
        lines.append(f"\n  and {len(fields) - MAX_FIELDS} more, such as {fields[MAX_FIELDS]}")
    named = ", ".join(f"host {host} is {machines[host]}" for host in sorted(mentioned)[:MAX_HOSTS])
    return f"The hosts of this run differ ({named}). Start the same command, code and packages on all:{''.join(lines)}"


def _values_differ(facts: list[Facts], field: str) -> bool:
    return any(_value_text(host_facts, field) != _value_text(facts[0], field) for host_facts in facts)


def _value_text(facts: Facts, field: str) -> str:
    return json.dumps(facts[field]) if field in facts else "nothing"


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 4]} ..."


def _format_hosts(hosts: list[int]) -> str:
    """Return "host 1" or "hosts 1, 2, 3 and 5 more"."""
    if len(hosts) == 1:
        return f"host {hosts[0]}"
    shown = ", ".join(map(str, hosts[:MAX_HOSTS]))
    return f"hosts {shown}" + (f" and {len(hosts) - MAX_HOSTS} more" if len(hosts) > MAX_HOSTS else "")
