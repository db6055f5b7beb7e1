"""The parts of a page, as data: paragraphs, tables, charts, pictures. templates/parts.html has a macro for each of them.

A macro has the name of the class in lower case. Every text may come from a file, and the templates escape it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

# The cells of a column of numbers: also 93.1 %, 12 min, an empty cell, and an en dash for a missing value.
NUMBER = re.compile(r"([+\-\u2212\u00b1~]?\d.*|\u2013|)", re.DOTALL)


class Text(NamedTuple):
    """A paragraph."""

    text: str
    is_missing: bool = False  # whether it says why something is not shown


class Table(NamedTuple):
    """A table. Columns of numbers are right-aligned, except the first column.

    If the table has several columns, a row with a single cell is the heading of the rows below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()  # lines below the table
    emphasized: int | None = None  # the index of the row that is set in bold

    @property
    def is_numeric(self) -> list[bool]:
        """Whether each column consists of numbers."""
        rows = [row for row in self.rows if len(row) == len(self.header)]
        return [i > 0 and all(NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(self.header))]


class Facts(NamedTuple):
    """Names and short values side by side."""

    values: Mapping[str, str]


class Definitions(NamedTuple):
    """Names and long values, line by line. A name may occur several times."""

    lines: Sequence[tuple[str, str]]


class Listing(NamedTuple):
    """Lines of code or options."""

    lines: Sequence[str]


class Folded(NamedTuple):
    """Parts that the reader unfolds."""

    title: str
    note: str
    parts: Sequence["Part"]


class LegendEntry(NamedTuple):
    """A series in a legend."""

    name: str
    value: str
    color: int = 0  # number of the color among those of style.css
    dash: str = ""  # lengths of dashes and gaps, for SVG; empty: a solid line


class Chart(NamedTuple):
    """A chart that Vega-Lite draws."""

    title: str
    spec: dict[str, Any]  # the specification, except the curves
    curves: list[list[tuple[float, float | None]]] | None = None  # the points (x, y) of each series of a line chart
    legend: Sequence[LegendEntry] = ()  # the series in the same order
    is_log: bool | None = None  # whether the y axis is logarithmic; None: it cannot be
    missing: str = ""  # why there is nothing to draw


class Charts(NamedTuple):
    """Charts side by side, as far as the page is wide enough."""

    charts: Sequence[Chart]
    are_wide: bool = True  # whether at most two stand side by side; otherwise three


class BarPart(NamedTuple):
    """What the bars of a figure are made of, in its legend."""

    name: str
    value: str
    color: int  # number of the color among those of style.css
    is_striped: bool = False


class Bar(NamedTuple):
    """A bar whose parts are side by side."""

    label: str  # beside the bar
    offset: float  # percent of the width of the figure to the left of the bar
    parts: Sequence[tuple[int, float, str]]  # (number of the part in the legend, percent of that width, value for the tooltip)


class Bars(NamedTuple):
    """Bars one below the other, in a figure as wide as the page."""

    title: str
    total: str
    legend: Sequence[BarPart]
    bars: Sequence[Bar]


class Picture(NamedTuple):
    """An image, ready to be shown."""

    uri: str  # data:image/...
    width: int  # pixels on the page
    height: int
    is_sharp: bool = False  # whether its pixels appear as squares
    text: str = ""  # the alternative text, which is also the tooltip
    caption: Sequence[str] = ()  # lines
    is_wrong: bool = False  # whether it is marked as a mistake, and the first line of its caption too


class Sheet(NamedTuple):
    """Pictures with captions, row by row."""

    pictures: Sequence[Picture]


class Pairs(NamedTuple):
    """Groups of pictures, one or two as a rule, that stay together. Each group may have a caption."""

    groups: Sequence[Sequence[Picture]]
    captions: Sequence[Sequence[str]] = ()


class Section(NamedTuple):
    """A heading with parts under it."""

    title: str
    parts: Sequence["Part"]


Part: TypeAlias = Text | Table | Facts | Definitions | Listing | Folded | Charts | Bars | Sheet | Pairs


def number(value: float, digits: int = 4) -> str:
    """Return a number as text: a whole number as it is, another one rounded to `digits` digits.

    Examples are 0.0005, 2e-5, 67.78 and 93 835. The minus is U+2212, and a narrow space separates thousands.
    """
    if not math.isfinite(value):
        return "not finite"
    if value == round(value) and abs(value) < 1e9:
        text = f"{value:,.0f}"
    else:
        value = float(f"{value:.{digits}g}")
        text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"
    for written, shown in ((",", "\u202f"), ("e-0", "e-"), ("e+0", "e"), ("e+", "e"), ("-", "\u2212")):
        text = text.replace(written, shown)
    return text
