"""Runs of several processes, of which one is lost, or runs other code."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from programs import ROOT, free_port

from benchmarks.chaos.kills import OnDisk
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.trials import Broken, Numbers, Trials, end_of, host_flags, wait_until
from mixer_jax.endings import DONE, TO_MEND

LEAVE_SECONDS = 60.0
WAYS = ("killed", "stopped", "cut off", "cut off in silence")
SPLITS = (((2, 1), (1, 2)), ((3, 2), (2, 3)), ((4, 1), (2, 2)))
"""Two ways to split the same devices, as (processes, devices of each). The run is begun with one and ended with the other."""


def lose_host(trials: Trials) -> Numbers:
    """Lose one of the processes of a run, and go on with another number of them."""
    way = WAYS[trials.seed % len(WAYS)]
    (processes, devices), after = SPLITS[trials.seed // len(WAYS) % len(SPLITS)]
    reference = trials.references.get(*after)
    run = OnDisk(trials.folder / "run")
    lost = trials.random.randrange(1 if way.startswith("cut") else 0, processes)  # Process 0 is what others are cut off from.
    hosts, lose = _start(trials, processes, devices, lost, way, run.workdir)
    _wait_for_moment(trials, run, hosts[0])
    if any(host.poll() is not None for host in hosts):
        raise Broken(f"a process ended before one was {way}:\n{_said(hosts)}")
    lose()
    staying = [host for host in hosts if host is not hosts[lost] or way.startswith("cut")]
    seconds = _leave(staying, way)
    if way == "stopped":
        hosts[lost].send_signal(signal.SIGCONT)
        seconds = max(seconds, _leave([hosts[lost]], "woken"))
    for host in hosts:
        host.communicate()
    for host in trials.start_hosts(*after, run.workdir):
        end_of(host)
    run.check(reference)
    return {way: 1, "longest seconds until the others had left": seconds}


def _start(
    trials: Trials, processes: int, devices: int, lost: int, way: str, workdir: str
) -> tuple[list[subprocess.Popen], Callable[[], None]]:
    """Start the processes. Return them, and the function that loses one of them."""
    port = free_port()
    proxy = Proxy(port) if way.startswith("cut") else None
    ports = [proxy.port if proxy and host == lost else port for host in range(processes)]
    flags = [host_flags(ports[host], processes, host) for host in range(processes)]
    hosts = [trials.start(workdir, *flags[host], devices=devices) for host in range(processes)]
    if proxy:
        return hosts, lambda: proxy.cut(silently=way.endswith("silence"))
    number = signal.SIGKILL if way == "killed" else signal.SIGSTOP
    return hosts, lambda: hosts[lost].send_signal(number)


def _wait_for_moment(trials: Trials, run: OnDisk, process: subprocess.Popen) -> None:
    """Wait for a random moment between the time when the processes have met and half of the steps."""
    wait_until(run.owner, process)
    saves = trials.random.randint(0, 4)
    wait_until(lambda: len(run.committed() | run.unfinished()) >= min(saves, 3), process)
    time.sleep(trials.random.uniform(0, 1.0))


def _leave(hosts: list[subprocess.Popen], way: str) -> float:
    """Wait until processes have ended, and return the seconds. Raise Broken if that is too late, or looks like success."""
    began = time.monotonic()
    for host in hosts:
        with contextlib.suppress(subprocess.TimeoutExpired):
            host.wait(max(0.01, began + LEAVE_SECONDS - time.monotonic()))
    seconds = time.monotonic() - began
    if late := sum(host.poll() is None for host in hosts):
        raise Broken(f"{late} of {len(hosts)} processes were still there {LEAVE_SECONDS:.0f} s after one was {way}")
    codes = [host.returncode for host in hosts]
    if {DONE, TO_MEND} & set(codes):
        raise Broken(f"after one was {way}, the others ended with the exit codes {codes}:\n{_said(hosts)}")
    return seconds


def _said(hosts: list[subprocess.Popen]) -> str:
    """Return what the processes that have ended have said."""
    return "\n".join(host.communicate()[0] for host in hosts if host.poll() is not None)


def change_code(trials: Trials) -> Numbers:
    """Start two hosts, one of which has a line more in a file of the package."""
    copy = trials.folder / "copy"
    shutil.copytree(ROOT / "mixer_jax", copy / "mixer_jax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", copy)
    file = trials.random.choice(sorted((copy / "mixer_jax").rglob("*.py")))
    digests = [_digest(file)]
    file.write_text(file.read_text() + "# A line that the other host does not have.\n")
    digests.append(_digest(file))
    port, workdir = free_port(), trials.folder / "run"
    programs = ["train.py", os.fspath(copy / "train.py")]
    hosts = [trials.start(workdir, *host_flags(port, 2, host), devices=1, program=programs[host]) for host in range(2)]
    expected = f'code of {file.relative_to(copy)}: "{digests[0]}" on host 0, "{digests[1]}" on host 1'
    for host in hosts:
        said = end_of(host, TO_MEND)
        if expected not in said or workdir.exists():
            raise Broken(f"{expected!r} was expected, and no folder of a run:\n{said}")
    return {}


def _digest(file: Path) -> str:
    """Return what hosts compare of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
