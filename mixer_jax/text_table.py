"""Formats figures as text for people: tables whose columns line up, and nested names with their values."""

from collections.abc import Callable, Iterator, Sequence

from mixer_jax.storage import json_text


def format_table(rows: Sequence[Sequence[object]], align: str = "<>") -> str:
    """Return a table as text, one line for each row. Columns line up, with two spaces between them.

    `align` has a character for each column, "<" (left) or ">" (right). Its last character holds for all further columns. None is
    shown as "-". A row may have fewer cells than others.
    """
    texts = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    num_columns = max(map(len, texts))
    widths = [max(len(row[column]) for row in texts if column < len(row)) for column in range(num_columns)]
    sides = align.ljust(num_columns, align[-1])
    lines = ("  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=False)) for row in texts)
    return "\n".join(line.rstrip() for line in lines)


def format_figures(figures: dict) -> str:
    """Return one line for each figure: its name, indented by its depth in the nested dicts, and its value."""
    return format_table(list(_figure_rows(figures)), "<<")


def _figure_rows(figures: dict, indent: str = "") -> Iterator[tuple[object, ...]]:
    """Yield (name, value) of each figure, and (name,) of each dict before its figures."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield (f"{indent}{name}",)
            yield from _figure_rows(value, indent + "  ")
        else:
            yield f"{indent}{name}", str(value)


def print_figures(figures: dict, as_json: bool, format_text: Callable[[dict], str] = format_figures) -> None:
    """Print the figures as one line of JSON for programs, or as text for people."""
    print(json_text(figures) if as_json else format_text(figures), flush=True)
