"""Reads WORKDIR/goodput.jsonl, in which a run records its starts: one row for each start and phase.

A row is {"start": 0, "phase": "training", "seconds": 12.345, "began": 1764589000.123, "ended": 1764589100.5, "first_step": 0,
"last_step": 40, "ending": "running"}. All but `phase` and `seconds` are equal in all rows of a start, and their seconds add up to
`ended` - `began`. A file for which this does not hold is refused, because every figure made from it would be wrong.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixer_jax.errors import UserError
from mixer_jax.storage import open_storage
from mixer_jax.supervision.account import ENDINGS, PART_OF_PHASE, Start

GOODPUT = "goodput.jsonl"
MAX_BYTES = 2**22  # About 3000 starts.
TOLERANCE_SECONDS = 0.1  # Between the seconds of the rows of a start and its length, which are rounded to milliseconds.
LATEST = 2.5e11  # The Unix time at the end of the year 9891.


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < LATEST


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {  # {field of a row: its test, and what it must be}
    "start": (_is_count, "a whole number, 0 or more"),
    "phase": (lambda value: isinstance(value, str) and value in PART_OF_PHASE, f"one of {', '.join(PART_OF_PHASE)}"),
    "seconds": (_is_seconds, "a number of seconds, 0 or more"),
    "began": (_is_seconds, "a Unix time"),
    "ended": (_is_seconds, "a Unix time"),
    "first_step": (_is_count, "a whole number, 0 or more"),
    "last_step": (_is_count, "a whole number, 0 or more"),
    "ending": (lambda value: value in ENDINGS, f"one of {', '.join(ENDINGS)}"),
}
OF_START = ("start", "began", "ended", "first_step", "last_step", "ending")


def read_starts(run: str | Path) -> list[Start]:
    """Return the starts that are recorded in a run's folder or gs://BUCKET/RUN, in their order.

    Raises UserError if nothing is recorded there, or if the record is damaged; the message names the file and the line.
    """
    storage = open_storage(str(run))
    text = storage.read_whole(GOODPUT, MAX_BYTES)
    if not text:
        raise UserError(
            f"{run} has no record of its time: there is no {GOODPUT}, or it is empty. Name the folder that was a run\u2019s "
            "--workdir. train.py writes this file from December 2026 on."
        )
    return parse_starts(text, f"{storage.url}/{GOODPUT}")


def parse_starts(text: bytes, file: str) -> list[Start]:
    """Return the starts in the text of goodput.jsonl, in their order. `file` is its name, for messages.

    Raises UserError that names the line if the text is not what a run writes.
    """
    starts: dict[int, Start] = {}
    for number, line in enumerate(text.splitlines(), 1):
        row, fault = _parse_row(line)
        if not fault:
            new = Start(*(row[name] for name in OF_START), {row["phase"]: row["seconds"]})
            start = starts.get(row["start"], new._replace(phases={}))
            fault = _find_fault(start, new)
            starts[start.number] = start._replace(phases={**start.phases, **new.phases})
        if fault:
            raise _damaged(file, f"line {number}", fault)
    for start in starts.values():
        total, length = math.fsum(start.phases.values()), start.ended - start.began
        if abs(total - length) > TOLERANCE_SECONDS:
            fault = f"the seconds of its rows add up to {total:.1f}, and it lasted {length:.1f} s"
            raise _damaged(file, f"start {start.number}", fault)
    return sorted(starts.values())


def _parse_row(line: bytes) -> tuple[dict[str, Any], str]:
    """Return the row, and what is wrong with its fields, or ""."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # The line is not JSON or UTF-8, or is nested too deep.
        row = None
    if not isinstance(row, dict):
        return {}, "it holds no table of names and values"
    for name, (is_valid, expected) in FIELDS.items():
        if name not in row:
            return row, f"it has no {name}"
        if not is_valid(row[name]):
            return row, f"{name} is {str(row[name])[:50]} and must be {expected}"
    return row, ""


def _find_fault(start: Start, new: Start) -> str:
    """Return what is wrong with a new row of a start, or ""."""
    if start[:-1] != new[:-1]:
        return f"it differs from an earlier row of start {start.number} in more than phase and seconds"
    if new.phases.keys() <= start.phases.keys():
        return f"start {start.number} has two rows of the phase {next(iter(new.phases))}"
    if new.ended < new.began:
        return "ended is before began"
    return "last_step is before first_step" if new.last_step < new.first_step else ""


def _damaged(file: str, place: str, fault: str) -> UserError:
    return UserError(
        f"{file} is damaged in {place}: {fault}. Restore the file, or remove all rows of that start while the run does not "
        "go on. Its time then counts as down."
    )
