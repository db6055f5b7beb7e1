"""The section about where the wall time of runs went: bars and a table by start or, for several runs, by run.

The figures are those of `python -m mixer_jax goodput` (supervision/account.py).
"""

import itertools
from collections.abc import Sequence

from mixer_jax.errors import UserError
from mixer_jax.pages.parts import Bar, BarPart, Bars, Folded, Part, Section, Table, Text, number
from mixer_jax.report.runs import Run, has_time_record
from mixer_jax.supervision.account import NOTES, PARTS, Account, account
from mixer_jax.supervision.account_text import began_text, ending_text, share_text, summary
from mixer_jax.supervision.recorded_starts import read_starts

TITLE = "Where the time went"
STYLES = {  # {part: (color, whether it is striped)}. Parts that belong together have the same color.
    "productive": (0, False),
    "steps done twice": (0, True),
    "initialization": (4, False),
    "compiling": (3, False),
    "restoring": (2, True),
    "saving": (2, False),
    "evaluating": (5, False),
    "waiting for data": (1, False),
    "stalled": (1, True),
    "down": (6, False),
}
MAX_UNFOLDED = 30  # With more starts, the reader unfolds their bars and their table.
MAX_STARTS = 300  # The most starts with a bar and a row. Of more, these are the last ones.
SECONDS = "All times are in seconds."


def wall_time_sections(runs: Sequence[Run]) -> list[Section]:
    """Return the section about the wall time of the runs whose folders have a record of it, or [] if none has.

    A record that is damaged costs the figures of its run alone: a line says why.
    """
    accounts, parts = {}, []
    for run in filter(has_time_record, runs):
        try:
            accounts[run.label] = account(read_starts(run.workdir))
        except (UserError, OSError) as error:
            parts.append(Text(f"Not shown: {error}", is_missing=True))
    if len(runs) == 1:
        parts += [part for found in accounts.values() for part in _by_start(found)]
    elif accounts:
        parts += _by_run(accounts)
        if others := [run.label for run in runs if not has_time_record(run)]:
            parts.append(Text(f"Not shown: {', '.join(others)}. Their time is not recorded.", is_missing=True))
    return [Section(TITLE, parts)] if parts else []


def _by_start(found: Account) -> list[Part]:
    """Return a summary, a bar of all starts, and a bar of each at its place in time with a table of the starts.

    The bars and the table of many starts are folded.
    """
    count, total = len(found.entries), found.wall_seconds
    shown = [part for part in PARTS if found.seconds[part]]
    texts = {part: f"{_tenths(found.seconds[part])} ({share_text(found.seconds[part], total)})" for part in shown}
    figure = Bars("Wall time", f"{_tenths(total)}\u2009s", [BarPart(part, texts[part], *STYLES[part]) for part in shown], [])
    overview = [Bar("all", 0.0, _bar_parts(found.seconds, shown, total))] if count > 1 else []
    before = itertools.accumulate((entry.wall_seconds for entry in found.entries), initial=0.0)
    bars = [
        Bar(
            f"{entry.start.number}: {began_text(entry.start)} UTC",
            100 * seconds / (total or 1.0),
            _bar_parts(entry.seconds, shown, total),
        )
        for entry, seconds in list(zip(found.entries, before, strict=False))[-MAX_STARTS:]
    ]
    table = _starts_table(found, shown)
    if count <= MAX_UNFOLDED:
        return [Text(summary(found)), figure._replace(bars=[*overview, *bars]), table]
    return [
        Text(summary(found)),
        figure._replace(bars=overview),
        Folded("The starts", number(count), [figure._replace(bars=bars), table]),
    ]


def _starts_table(found: Account, shown: Sequence[str]) -> Table:
    """Return a table with a row for each start and one of their sums."""
    rows = [
        [
            str(entry.start.number),
            f"{entry.start.first_step}\u2013{entry.start.last_step}",
            ending_text(entry),
            *map(_tenths, (entry.wall_seconds, *(entry.seconds[part] for part in shown))),
        ]
        for entry in found.entries[-MAX_STARTS:]
    ]
    sums = ["all", "", "", *map(_tenths, (found.wall_seconds, *(found.seconds[part] for part in shown)))]
    count = len(found.entries)
    cut = f"The last {number(MAX_STARTS)} starts have a row. The sums are those of all {number(count)}."
    notes = [*([cut] if count > MAX_STARTS else []), SECONDS, *NOTES]
    return Table(["start", "steps", "ending", "wall time", *shown], [*rows, sums], notes, emphasized=len(rows))


def _by_run(accounts: dict[str, Account]) -> list[Part]:
    """Return a bar and a row of a table for each run, and the starts of each, which the reader unfolds."""
    shown = [part for part in PARTS if any(found.seconds[part] for found in accounts.values())]
    legend = [BarPart(part, "", *STYLES[part]) for part in shown]
    bars = [Bar(label, 0.0, _bar_parts(found.seconds, shown, found.wall_seconds)) for label, found in accounts.items()]
    rows = [
        [
            label,
            str(len(found.entries)),
            share_text(found.seconds["productive"], found.wall_seconds),
            *map(_tenths, (found.wall_seconds, *(found.seconds[part] for part in shown))),
        ]
        for label, found in accounts.items()
    ]
    return [
        Bars("Shares of the wall time", "of each run", legend, bars),
        Table(["run", "starts", "goodput", "wall time", *shown], rows, [SECONDS, *NOTES]),
        *(Folded(label, summary(found), _by_start(found)[1:]) for label, found in accounts.items()),
    ]


def _bar_parts(seconds: dict[str, float], shown: Sequence[str], total: float) -> list[tuple[int, float, str]]:
    """Return the parts of a bar whose width is `total` seconds. Parts without time are left out."""
    return [
        (index, 100 * seconds[part] / total, f"{_tenths(seconds[part])}\u2009s")
        for index, part in enumerate(shown)
        if seconds[part]
    ]


def _tenths(seconds: float) -> str:
    """Return seconds to a tenth, with a narrow space between thousands."""
    return f"{seconds:,.1f}".replace(",", "\u202f")
