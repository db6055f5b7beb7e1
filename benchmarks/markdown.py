"""Formats figures as Markdown for docs/."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with one line for the head and one for each row."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def three_digits(number: float) -> str:
    """Return a number, rounded to three significant digits: more would claim too much of a measurement or an estimate."""
    return f"{float(f'{number:.3g}'):,g}"


def code(lines: Sequence[str]) -> str:
    """Return lines of text as a block of code."""
    return "\n".join(["```", *lines, "```"])
