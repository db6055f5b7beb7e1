"""Writes the account of a run's wall time as figures for programs and as text for people."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mixer_jax.supervision.account import NOTES, PARTS, Account, Entry, Start
from mixer_jax.text_table import format_table

UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def account_figures(run: str, account: Account) -> dict[str, Any]:
    """Return the account of the run named `run` as nested dicts and lists that JSON can hold."""
    starts = [
        {
            "start": entry.start.number,
            "began": entry.start.began,
            "ended": entry.start.ended,
            "first_step": entry.start.first_step,
            "last_step": entry.start.last_step,
            "ending": entry.ending,
            "wall_seconds": entry.wall_seconds,
            "seconds": _with_keys(entry.seconds),
        }
        for entry in account.entries
    ]
    return {
        "run": run,
        "wall_seconds": account.wall_seconds,
        "goodput": account.goodput,
        "seconds": _with_keys(account.seconds),
        "starts": starts,
    }


def _with_keys(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds by part with keys such as waiting_for_data."""
    return {part.replace(" ", "_"): value for part, value in seconds.items()}


def format_account(run: str, account: Account) -> str:
    """Return a line about the run named `run`, a table with a row for each start, a table of the totals, and two notes."""
    total = account.wall_seconds
    shown = [part for part in PARTS if account.seconds[part]]
    header = [("", "start"), ("", "began (UTC)"), ("", "steps"), ("", "ending"), ("", "wall time"), *map(_in_two_lines, shown)]
    starts = [
        [
            entry.start.number,
            began_text(entry.start),
            f"{entry.start.first_step}-{entry.start.last_step}",
            ending_text(entry),
            *(f"{seconds:.1f}" for seconds in (entry.wall_seconds, *(entry.seconds[part] for part in shown))),
        ]
        for entry in account.entries
    ]
    sums = ["", "", "", "all", *(f"{seconds:.1f}" for seconds in (total, *(account.seconds[part] for part in shown)))]
    totals = [[part, f"{seconds:.1f}", share_text(seconds, total)] for part, seconds in account.seconds.items()]
    return "\n\n".join([
        f"{run}: {summary(account)}",
        format_table([*zip(*header, strict=True), *starts, sums], "><<<>"),
        format_table([["", "seconds", "share"], *totals, ["wall time", f"{total:.1f}", share_text(total, total)]]),
        "\n".join(NOTES),
    ])  # fmt: skip


def summary(account: Account) -> str:
    """Return a sentence with the number of starts, the wall time and the goodput."""
    count = len(account.entries)
    starts = f"{count} start{'s' * (count != 1)}"
    goodput = share_text(account.seconds["productive"], account.wall_seconds)
    return f"{starts}, {duration_text(account.wall_seconds)} of wall time, goodput {goodput}."


def began_text(start: Start) -> str:
    """Return the date and time at which a start began, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(start.began))


def ending_text(entry: Entry) -> str:
    """Return how a start ended. The record of the last start does not tell a running start from one that was killed."""
    return "running or killed" if entry.ending == "running" else entry.ending


def share_text(seconds: float, total: float) -> str:
    """Return a share in percent, or a dash if there is no total."""
    return f"{100 * seconds / total:.1f} %" if total else "-"


def duration_text(seconds: float) -> str:
    """Return a time in its two largest units: 8.5 s, 12 min 30 s, 2 h 14 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    rest, texts = round(seconds), []
    for unit, length in UNITS:
        count, rest = divmod(rest, length)
        if count or texts:
            texts.append(f"{count} {unit}")
    return " ".join(texts[:2])


def _in_two_lines(part: str) -> Sequence[str]:
    """Return the two lines of the heading of a column: "waiting for" over "data"."""
    return part.rpartition(" ")[::2]
