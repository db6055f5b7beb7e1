"""Exhibits: the paper's tables and figures as rows and cells, read from text that looks as the paper prints it.

A person checks an exhibit against the paper by holding the text beside it, so the paper's own marks stand in the text:

    0.41k       k stands for thousands: 410 core-days
    0.41k‡      the paper extrapolated this figure
    (☎)         after a row's name: the authors of ViT told the accuracies of this row privately
    [14]        after a row's name: the paper cites the accuracies of this row
    ~71.4       our mark: the figure was read off a drawing
    -           the paper gives no figure
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

# How the paper came by a figure.
STATED, EXTRAPOLATED, PRIVATE, DIGITIZED, CITED = "stated", "extrapolated", "private", "digitized", "cited"

SOURCES = {  # {source: what it means}; the docs have this table
    STATED: "The paper prints this figure.",
    EXTRAPOLATED: "The paper prints it, and extrapolated it from other runs (‡).",
    PRIVATE: "The authors of ViT told the paper this figure and published no recipe with it (☎).",
    CITED: "The paper took this figure from another paper.",
    DIGITIZED: "We read it off a drawing: to 0.2 points, or to 2 % where the axis is logarithmic.",
}

# What a column is, which decides where our figure comes from.
SETTING = "setting"  # a part of the row's description, such as the image size; nothing to reproduce
ACCURACY = "accuracy"  # percent, from runs
PLANNED = "planned"  # a speed or a cost on TPU v3; ours is an estimate
SPECIFIED = "specified"  # a size of a model or an option of a recipe; ours is what the code has
TEXT = "text"  # words, or what a picture shows


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of an exhibit.

    Attributes:
      name: the word for `--columns`.
      kind: SETTING, ACCURACY, PLANNED, SPECIFIED or TEXT.
      unit: the unit of its figures.
    """

    name: str
    kind: str
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of an exhibit.

    Attributes:
      text: the text as the paper prints it, without marks.
      value: the figure in the unit of the column, or the text where it is no figure.
      source: how the paper came by it: STATED, EXTRAPOLATED, PRIVATE, DIGITIZED or CITED.
      tolerance: a figure of ours that is no further away agrees with the paper's.
    """

    text: str
    value: float | str
    source: str
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of an exhibit. `group` is the heading above it, and `name` is its first cell as the paper prints it, with marks."""

    group: str
    name: str
    cells: Mapping[str, Cell]


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """A table or a figure of the paper.

    Attributes:
      title: its name in the paper, and what it shows.
      columns: its columns, without the first, which names the row.
      rows: its rows, in the paper's order.
      notes: what the paper says below it, and what a reader must know of it.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def parse_exhibit(
    title: str, columns: Sequence[Column], text: str, *, spread: float | None = None, notes: Sequence[str] = ()
) -> Exhibit:
    """Return an exhibit from its text.

    A line of the text is a row. Its fields stand apart by two spaces or more. A line with one field is the heading of the rows
    below it.

    Args:
      title: The title of the exhibit.
      columns: The columns after the row's name. All rows have one field for each.
      text: The text, as the paper prints it.
      spread: The bound that the paper gives for the standard deviation of its accuracies. None: it gives none.
      notes: The notes of the exhibit.
    """
    rows, group = [], ""
    for line in filter(None, map(str.strip, text.splitlines())):
        name, *fields = re.split(r"\s{2,}", line)
        if not fields:
            group = name
            continue
        cells = {
            column.name: _cell(field, column, name, spread) for column, field in zip(columns, fields, strict=True) if field != "-"
        }
        rows.append(Row(group, name, cells))
    return Exhibit(title, tuple(columns), tuple(rows), tuple(notes))


def _cell(field: str, column: Column, row_name: str, spread: float | None) -> Cell:
    """Return a cell. Only the accuracies of a row are cited or private: speeds and costs are the paper's own."""
    text = field.strip("~‡")
    source = DIGITIZED if field.startswith("~") else EXTRAPOLATED if field.endswith("‡") else STATED
    if column.kind == ACCURACY and source == STATED:
        source = PRIVATE if "☎" in row_name else CITED if re.search(r"\[\d+\]", row_name) else STATED
    figure = re.fullmatch(r"(\d+(?:\.(\d+))?)(k?)", text)
    if column.kind == TEXT or not figure:
        return Cell(text, text, source, 0.0)
    number, decimals, thousands = figure.groups()
    factor = 1000 if thousands else 1
    rounding = 0.5 * factor / 10 ** len(decimals or "")
    value = round(float(number) * factor, 6)
    return Cell(text, value, source, _tolerance(column, source, rounding, value, spread))


def _tolerance(column: Column, source: str, rounding: float, value: float, spread: float | None) -> float:
    """Return how far a figure of ours may be from a figure of the paper and agree with it.

    Accuracies that were read off a drawing are known to 0.2 points, and other figures that were, to 2 %, because their axes are
    logarithmic. Other accuracies agree within the spread that the paper gives for its runs. What remains is exact up to its last
    digit, and an option of a recipe is exact.
    """
    if source == DIGITIZED:
        return 0.2 if column.kind == ACCURACY else 0.02 * value
    if column.kind == SPECIFIED:
        return rounding if column.unit == "million" else 0.0
    return spread if column.kind == ACCURACY and source == STATED and spread else rounding
