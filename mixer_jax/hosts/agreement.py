"""All hosts of a run must agree: on the config, the code, the packages, the devices, the data and the folder.

Each host posts its facts by name. Host 0 compares them with its own and posts the verdict, which every host then raises. Nothing
may differ but what is not posted: names of machines, process numbers, and how --workdir is spelled (records.Workdir).
"""

import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts.board import Board, find_board
from mixer_jax.storage import read_bytes

DISK_SECONDS, MAX_TOKEN_BYTES = 5.0, 10_000
NOTICE_SECONDS = 60.0
TIMEOUT_SECONDS = 3600.0  # for hosts that still open their data: to compare the digests of all shards takes its time
MAX_FIELDS, MAX_VALUES, MAX_HOSTS, MAX_TEXT = 8, 3, 4, 200  # in a message

Facts = dict[str, Any]  # what JSON holds, by name


def agree(topic: str, facts: Callable[[], Facts], timeout_seconds: float = TIMEOUT_SECONDS, board: Board | None = None) -> None:
    """Compare the facts of all hosts. Each calls this with the same topics in the same order; for a host alone it does nothing.

    Raises UserError, the same on every host, when they differ; on host 0 EnvironmentFault when a host is not heard from in time.
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


def agree_on_folder(path: Path, file: Path, token: str | None, board: Board | None = None) -> None:
    """Check that `path` is one folder for all hosts: in `file`, which is in it, all read the token that host 0 has written there.

    Raises UserError, the same on every host.
    """
    board = board or find_board()
    if board is None:
        return
    name = f"agreement {next(board.agreements)}/token"
    if token is not None:
        board.post(name, json.dumps([str(path), token]))
    text = board.wait(name, TIMEOUT_SECONDS)
    if text is None:
        raise EnvironmentFault(f"Host 0 has not opened its --workdir in {TIMEOUT_SECONDS:g} s. See what it says.")
    there, expected = json.loads(text)
    where = there if _comes_to_hold(file, expected) else f"{path}, which is another folder or not on a disk that both share,"
    agree("folder", lambda: {"--workdir": where}, board=board)


def _compare_all(board: Board, name: str, topic: str, timeout_seconds: float) -> str:
    deadline = time.monotonic() + timeout_seconds
    texts = [_wait_for(board, f"{name}/{host}", f"the {topic} of host {host}", deadline) for host in range(board.num_hosts)]
    missing = [host for host, text in enumerate(texts) if text is None]
    if missing:
        raise EnvironmentFault(f"Nothing came from {_hosts(missing)} in {timeout_seconds:g} s ({topic}). See what is said there.")
    words = [json.loads(text) for text in texts if text is not None]
    return compare([word["facts"] for word in words], [word["machine"] for word in words])


def _wait_for(board: Board, name: str, what: str, deadline: float) -> str | None:
    """Return a text, or None when it has not come by the deadline. Say now and then what is waited for."""
    while (seconds := deadline - time.monotonic()) > 0:
        if (text := board.wait(name, min(seconds, NOTICE_SECONDS))) is not None:
            return text
        print(f"Waiting for {what}.", flush=True)
    return None


def _comes_to_hold(file: Path, token: str) -> bool:
    """Whether a file holds the token, or does so soon: a network disk may show what was written a moment later."""
    deadline = time.monotonic() + DISK_SECONDS
    while not (file.is_file() and read_bytes(file, MAX_TOKEN_BYTES) == token.encode()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def compare(facts: list[Facts], machines: list[str]) -> str:
    """Return what differs between the facts of the hosts, a line for each name, or ""."""
    fields = [field for field in dict.fromkeys(field for each in facts for field in each) if _values_differ(facts, field)]
    if not fields:
        return ""
    lines, mentioned = [], {0}
    for field in fields[:MAX_FIELDS]:
        hosts_of_value = defaultdict(list)
        for host, each in enumerate(facts):
            hosts_of_value[_text(each, field)].append(host)
        shown = list(hosts_of_value.items())[:MAX_VALUES]
        mentioned |= {host for _, hosts in shown for host in hosts[:MAX_HOSTS]}
        more = f", and {len(hosts_of_value) - MAX_VALUES} other values" if len(hosts_of_value) > MAX_VALUES else ""
        lines.append(f"\n  {field}: " + ", ".join(f"{_brief(value)} on {_hosts(hosts)}" for value, hosts in shown) + more)
    if len(fields) > MAX_FIELDS:
        lines.append(f"\n  and {len(fields) - MAX_FIELDS} more, such as {fields[MAX_FIELDS]}")
    named = ", ".join(f"host {host} is {machines[host]}" for host in sorted(mentioned)[:MAX_HOSTS])
    return f"The hosts of this run differ ({named}). Start the same command, code and packages on all:{''.join(lines)}"


def _values_differ(facts: list[Facts], field: str) -> bool:
    return any(_text(each, field) != _text(facts[0], field) for each in facts)


def _text(facts: Facts, field: str) -> str:
    return json.dumps(facts[field]) if field in facts else "nothing"


def _brief(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 4]} ..."


def _hosts(hosts: list[int]) -> str:
    if len(hosts) == 1:
        return f"host {hosts[0]}"
    shown = ", ".join(map(str, hosts[:MAX_HOSTS]))
    return f"hosts {shown}" + (f" and {len(hosts) - MAX_HOSTS} more" if len(hosts) > MAX_HOSTS else "")
