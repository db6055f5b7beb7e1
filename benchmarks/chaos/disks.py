"""A disk that is full: a file system in memory of a random size, which needs the rights of root."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chaos.kills import OnDisk
from benchmarks.chaos.trials import Broken, Numbers, Skipped, Trials, end_of
from mixer_jax.endings import DONE, TRY_AGAIN

ENOUGH = 2**28


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of so many bytes at a folder. Raises Skipped if this machine does not let us."""
    folder.mkdir(parents=True)
    try:
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise Skipped("this machine has no `mount`") from error
    if mount.returncode:
        raise Skipped(f"it needs the rights of root ({mount.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(trials: Trials) -> Numbers:
    """Run on a disk with too little room, then make room."""
    reference = trials.references.get()
    needed = sum(file.stat().st_blocks * 512 for file in reference.workdir.rglob("*"))
    for attempt in range(20):
        disk = trials.folder / f"disk-{attempt}"
        with small_disk(disk, round(trials.random.uniform(0.01, 1) * needed)):
            run = OnDisk(disk / "run")
            said = end_of(process := trials.start(run.workdir), DONE, TRY_AGAIN)
            if process.returncode == DONE:  # This size was enough.
                continue
            if said.count("error: ") != 1 or "Traceback" in said:
                raise Broken(f"one message was expected:\n{said}")
            saved = len(run.committed())
            subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", str(disk)], check=True)
            end_of(trials.start(run.workdir))
            run.check(reference)
        return {"full before the first save": int(not saved), "full later": int(bool(saved))}
    raise Broken("no size was too small")
