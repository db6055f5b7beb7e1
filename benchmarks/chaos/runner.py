"""Runs the trials of rows, in lanes that compute at the same time, and counts what held."""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from benchmarks.chaos.trials import Numbers, References, Row, Skipped, Trials
from benchmarks.markdown import table, three_digits
from mixer_jax.records import Progress

MAX_REASON = 2000  # The last characters of a reason. It may quote all that a program has said.


@dataclass
class Result:
    """What came out of the trials of a row. `failures` has the seed, the number of trials and the reason of each unit of them."""

    fault: str
    checked: str
    trials: int = 0
    held: int = 0
    seconds: float = 0.0
    numbers: Numbers = field(default_factory=dict)
    failures: list[dict] = field(default_factory=list)
    skipped: str = ""

    def add(self, numbers: Numbers) -> None:
        """Add the figures of some trials."""
        for name, number in numbers.items():
            before = self.numbers.get(name, 0)
            self.numbers[name] = max(before, number) if name.startswith("longest") else before + number

    def figures(self) -> dict:
        """Return all of it for JSON."""
        return asdict(self) | {"seconds": round(self.seconds), "numbers": {k: round(v, 1) for k, v in self.numbers.items()}}


class Unit(NamedTuple):
    """Some trials of a row that are made together, and repeated together by their seed."""

    name: str
    row: Row
    trials: int
    seed: int

    @property
    def share(self) -> Fraction:
        """The part of a lane that it takes."""
        return Fraction(1, self.row.at_once)


def run_rows(
    rows: dict[str, Row], counts: dict[str, int], seed: int, lanes: int, folder: Path, references: References
) -> dict[str, Result]:
    """Return the result of each row.

    Args:
      rows: By name.
      counts: How many trials of each row.
      seed: That of the first unit of each row. The next ones have the next numbers.
      lanes: How many units run at the same time, and more of them if they mostly wait.
      folder: Where each unit has a folder, which is deleted if its trials hold.
      references: The runs without a fault.
    """
    tally, shares = _Tally(rows, sum(counts.values())), _Lanes(lanes)
    units = [unit for name, row in rows.items() for unit in _units(name, row, counts[name], seed)]

    def run(unit: Unit) -> None:
        try:
            tally.run(unit, Trials(unit.trials, unit.seed, folder / f"{unit.name}-{unit.seed}", references))
        finally:
            shares.give_back(unit.share)

    with ThreadPoolExecutor(len(units)) as pool:
        try:
            made = []
            for unit in units:
                shares.take(unit.share)
                made.append(pool.submit(run, unit))
            for future in made:
                future.result()
        except BaseException:  # Ctrl-C, for example.
            pool.shutdown(wait=False, cancel_futures=True)
            tally.interrupt()
            raise
    tally.progress.close()
    return tally.results


def _units(name: str, row: Row, trials: int, seed: int) -> list[Unit]:
    starts = range(0, trials, row.unit)
    return [Unit(name, row, min(row.unit, trials - first), seed + number) for number, first in enumerate(starts)]


class _Lanes:
    """What units share: one that mostly waits takes a part of a lane."""

    def __init__(self, count: int):
        self._free, self._changed = Fraction(count), threading.Condition()

    def take(self, share: Fraction) -> None:
        """Wait until this share of a lane is free, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share

    def give_back(self, share: Fraction) -> None:
        """Let others have a share that was taken."""
        with self._changed:
            self._free += share
            self._changed.notify_all()


class _Tally:
    """The results so far, which the lanes share."""

    def __init__(self, rows: dict[str, Row], total: int):
        self.results = {name: Result(row.fault, row.checked) for name, row in rows.items()}
        self.progress, self._done, self._lock = Progress(total, 0, "trial"), 0, threading.Lock()
        self._running: list[Trials] = []

    def run(self, unit: Unit, trials: Trials) -> None:
        """Make the trials of a unit, and count them."""
        self._running.append(trials)
        began = time.monotonic()
        numbers, reason, skipped = self._try(unit.row.run, trials)
        self._running.remove(trials)
        with self._lock:
            result = self.results[unit.name]
            result.seconds += time.monotonic() - began
            self._done += unit.trials
            if skipped:
                result.skipped = skipped
                return
            result.trials += unit.trials
            if reason:
                result.failures.append({"seed": unit.seed, "trials": unit.trials, "reason": reason[-MAX_REASON:]})
                print(f"{unit.name}, seed {unit.seed}: {reason}\nIts folder is kept: {trials.folder}", file=sys.stderr)
            else:
                result.held += unit.trials
                result.add(numbers)
                shutil.rmtree(trials.folder, ignore_errors=True)
            self.progress.update(self._done, f"{unit.name} held {result.held} of {result.trials}, seed {unit.seed}")

    def interrupt(self) -> None:
        """End the processes of all trials that are being made."""
        for trials in list(self._running):
            trials.end_processes()

    @staticmethod
    def _try(run: Callable[[Trials], Numbers], trials: Trials) -> tuple[Numbers, str, str]:
        """Return the figures of the trials, the reason why one did not hold or "", and why they cannot be made here or ""."""
        try:
            with trials:
                return run(trials), "", ""
        except Skipped as error:
            return {}, "", str(error)
        except Exception as error:  # Whatever is raised is a reason: a row may expect less than what happens.
            return {}, f"{type(error).__name__}: {error}", ""


def format_results(figures: dict[str, dict]) -> str:
    """Return the table for docs/, of what `Result.figures` returns by row."""
    rows = []
    for figure in figures.values():
        facts = [f"skipped: {figure['skipped']}"] if figure["skipped"] else [f"**{figure['held']} held**"]
        facts += [f"{name}: {three_digits(number)}" for name, number in figure["numbers"].items()]
        facts += [f"seed {failure['seed']}: {failure['reason'][-200:]}" for failure in figure["failures"]]
        rows.append([figure["fault"], f"{figure['trials']:,}", figure["checked"], "; ".join(facts).replace("\n", " ")])
    return table(["fault", "trials", "what was checked", "result"], rows)
