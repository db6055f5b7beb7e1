"""Shows an exhibit: for each cell the paper's figure, ours, the difference, the status, the cost that is left, and notes."""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from mixer_jax.errors import UserError
from mixer_jax.reproduction import costs
from mixer_jax.reproduction.exhibit import ACCURACY, PLANNED, SETTING, SPECIFIED, Cell, Column, Exhibit, Row
from mixer_jax.reproduction.paper.exhibits import EXHIBITS
from mixer_jax.reproduction.setup import WITHOUT_RUNS, Setup
from mixer_jax.reproduction.standing import standing
from mixer_jax.reproduction.status import STATUSES, Standing
from mixer_jax.text_table import format_table

HEAD = ("row", "column", "paper", "source", "ours", "difference", "tolerance", "status", "core-days left", "notes")
ALIGN = "<<><>>><><"


def figures_of(name: str, rows: str = "*", columns: Sequence[str] = (), setup: Setup = WITHOUT_RUNS) -> dict:
    """Return an exhibit with what stands in its cells, for `format_exhibit` and for programs.

    Args:
      name: The exhibit: a key of EXHIBITS.
      rows: A pattern for the names of rows or for their labels, in which * stands for any text.
      columns: The names of the columns. Empty: all.
      setup: Where the runs are, and how they are made.

    Raises:
      UserError: No row has such a name, there is no such column, or a run in `workdir` is damaged.
    """
    parts = [
        {"title": exhibit.title, "notes": list(exhibit.notes), "rows": [_row(name, exhibit, *chosen, setup) for chosen in found]}
        for exhibit, found in choose(name, rows, columns)
    ]
    return {"exhibit": name, "estimated_by": costs.estimated_by(), "parts": parts}


def choose(name: str, pattern: str, columns: Sequence[str]) -> list[tuple[Exhibit, list[tuple[Row, list[Column]]]]]:
    """Return the parts of an exhibit with their chosen rows, each with its chosen columns. Parts without such rows are left out.

    Args:
      name: The exhibit: a key of EXHIBITS.
      pattern: A pattern for the names of rows or for their labels, in which * stands for any text.
      columns: The names of the columns. Empty: all.

    Raises:
      UserError: No row has such a name, or there is no such column.
    """
    exhibits = EXHIBITS[name]
    known = list(dict.fromkeys(column.name for exhibit in exhibits for column in exhibit.columns if column.kind != SETTING))
    for column in columns:
        if column not in known:
            raise UserError(f"{name} has no column {column!r}: its columns are {', '.join(known)}.")
    found = [(exhibit, list(_rows(exhibit, pattern, columns or known))) for exhibit in exhibits]
    if not any(rows for _, rows in found):
        names = dict.fromkeys(row.name for exhibit in exhibits for row in exhibit.rows)
        raise UserError(
            f"{name} has no row {pattern!r} with these columns: its rows are {', '.join(names)}. * stands for any text."
        )
    return [(exhibit, rows) for exhibit, rows in found if rows]


def _rows(exhibit: Exhibit, pattern: str, columns: Sequence[str]) -> Iterator[tuple[Row, list[Column]]]:
    for row in exhibit.rows:
        names = (row.name, label(row, exhibit), f"{row.group}: {label(row, exhibit)}")
        shown = [column for column in exhibit.columns if column.name in columns and column.name in row.cells]
        if shown and any(_matches(text, pattern) for text in names):
            yield row, shown


def label(row: Row, exhibit: Exhibit) -> str:
    """Return the name of a row with its settings, such as "Mixer-L/16, 448 pixels, 14 epochs"."""
    settings = [column.name for column in exhibit.columns if column.kind == SETTING and column.name in row.cells]
    return ", ".join([row.name, *(f"{row.cells[setting].text} {setting}" for setting in settings)])


def _matches(text: str, pattern: str) -> bool:
    """Return whether a text matches a pattern in which only * is special: [14] is a part of names."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


def _row(name: str, exhibit: Exhibit, row: Row, columns: Sequence[Column], setup: Setup) -> dict:
    cells = [_cell(row.cells[column.name], column, standing(name, row, column, setup)) for column in columns]
    return {"group": row.group, "name": row.name, "label": label(row, exhibit), "cells": cells}


def _cell(cell: Cell, column: Column, found: Standing) -> dict:
    is_number = isinstance(cell.value, float) and isinstance(found.ours, int | float)
    return {
        "column": column.name,
        "kind": column.kind,
        "unit": column.unit,
        "paper": cell.value,
        "paper_text": cell.text,
        "source": cell.source,
        "tolerance": cell.tolerance,
        "ours": found.ours,
        "difference": found.ours - cell.value if is_number else None,
        "status": found.status,
        "num_runs": found.num_runs,
        "core_days_left": found.cost.core_days if found.cost else None,
        "cost_basis": found.cost.basis if found.cost else None,
        "deviations": list(found.deviations),
        "reasons": list(found.reasons),
        "commands": list(found.commands),
        "runs": [dataclasses.asdict(run) for run in found.runs],
    }


def format_exhibit(figures: dict) -> str:
    """Return what `figures_of` returned as text for people."""
    notes: dict[str, int] = {}
    texts = [_format_part(part, notes) for part in figures["parts"]]
    cells = [cell for part in figures["parts"] for row in part["rows"] for cell in row["cells"]]
    texts.append(format_table([(status, STATUSES[status]) for status in dict.fromkeys(cell["status"] for cell in cells)], "<"))
    texts.append(format_table([(number, note) for note, number in notes.items()], "><") if notes else "")
    texts.append(cost_note(figures))
    return "\n\n".join(filter(None, texts))


def cost_note(figures: dict) -> str:
    """Return the note about the core-days of an exhibit, or "" if it has none."""
    cells = [cell for part in figures["parts"] for row in part["rows"] for cell in row["cells"]]
    bases = ", ".join(dict.fromkeys(cell["cost_basis"] for cell in cells if cell["cost_basis"]))
    if not bases:
        return ""
    columns = {cell["column"] for cell in cells}
    where = {
        "imagenet": "Those of a pre-training stand in the line core_days of a row, those of its fine-tuning in the others.",
        "avg5": "avg5 contains the runs of imagenet.",
        "300M": "A 5-shot accuracy has those of its pre-training.",
        "518k": "The last line of a row has those of its pre-training.",
    }
    said = [f"Core-days are those of TPU v3, as estimates ({bases}; {figures['estimated_by']})."]
    return " ".join([*said, *(text for column, text in where.items() if column in columns)])


def _format_part(part: dict, notes: dict[str, int]) -> str:
    lines = table_lines(part, notes)
    indented = [lines[0], *(line if len(line) == 1 else (f"  {line[0]}", *line[1:]) for line in lines[1:])]
    text = format_table(indented, "".join(ALIGN[HEAD.index(name)] for name in lines[0]))
    return "\n".join([part["title"], *part["notes"], "", text])


def table_lines(part: dict, notes: dict[str, int]) -> list[Sequence[object]]:
    """Return the head of an exhibit's table and its lines. A line is a cell, or the name of a group, which stands alone.

    Columns without any figure are left out. Notes that are new get the next numbers in `notes`.
    """
    lines: list[Sequence[object]] = [HEAD]
    group = ""
    for row in part["rows"]:
        if row["group"] != group:
            group = row["group"]
            lines.append((group,))
        names = [row["label"], *[""] * len(row["cells"])]
        lines += [_line(name, cell, notes) for name, cell in zip(names, row["cells"], strict=False)]
    used = [
        column for column in range(len(HEAD)) if any(line[column] not in (None, "") for line in lines[1:] if len(line) > column)
    ]
    return [[line[column] for column in used if column < len(line)] for line in lines]


def _line(name: str, cell: dict, notes: dict[str, int]) -> tuple[object, ...]:
    said = [*(f"Deviation: {text}" for text in cell["deviations"]), *cell["reasons"]]
    numbers = [notes.setdefault(text, len(notes) + 1) for text in said]
    ours, difference, cost = cell["ours"], cell["difference"], cell["core_days_left"]
    if isinstance(ours, int | float):
        ours = f"{ours:.2f}" if cell["kind"] == ACCURACY else f"{ours:.4g}" if cell["kind"] == SPECIFIED else _three_digits(ours)
    if difference is not None:
        difference = f"{difference:+.2f}" if cell["kind"] == ACCURACY else _three_digits(difference, "+")
    paper = f"{cell['paper']:g}" if cell["kind"] == PLANNED else cell["paper_text"]
    cost = None if cost is None else _three_digits(cost)
    within = f"{cell['tolerance']:.3g}" if cell["tolerance"] else None
    figures = (paper, cell["source"], ours, difference, within, cell["status"], cost)
    return name, cell["column"], *figures, " ".join(map(str, numbers))


def _three_digits(number: float, sign: str = "") -> str:
    """Return a number with three significant digits, which is all that an estimate has."""
    return f"{float(f'{number:.3g}'):{sign}g}"
