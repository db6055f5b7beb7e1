"""Charts as SVG inside well-formed HTML: lines over steps, and one stacked bar. No picture files, no plotting library.

Colours are the classes s0, s1, ... of style.py, so that a chart follows the page into the dark. Not here: which
figures of a run are drawn (sections.py).
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from mixer_jax.report.document import number

HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 190, 46, 12, 8, 36  # pixels: the drawing, and the margins around the plot
MOST_DOTS, MOST_TOOLTIPS = 12, 100  # a line: above, its points are not drawn, and not each has a tooltip
COLOURS = 7


class Line(NamedTuple):
    name: str  # in the legend; empty: not there
    points: Sequence[tuple[float, float]]  # (x, y), x ascending; the line is broken where y is not finite
    colour: int = 0  # s0, s1, ...


class Axis(NamedTuple):
    low: float
    high: float
    start: float  # pixels, where `low` lies
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(title: str, lines: Sequence[Line], *, width: int = 340) -> str:
    """A figure of `width` pixels over steps from 0; `title` names the quantity and its unit.

    Every line's last value stands in the legend. Zero is part of the y axis when that costs less than a third of it.
    Points that are not finite are left out; with none left, the figure says so.
    """
    finite = [point for line in lines for point in line.points if math.isfinite(point[1])]
    if not finite:
        return f'<figure class="chart">{_caption(title)}<p class="missing">No finite value.</p></figure>'
    y_ticks = ticks(*_range([point[1] for point in finite]), 4)
    y = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    x = Axis(0, max(1, *(point[0] for line in lines for point in line.points)), LEFT, width - RIGHT)
    x_ticks = [tick for tick in ticks(x.low, x.high, width // 60) if tick <= x.high]
    drawing = [_grid(x, x_ticks, y, y_ticks)]
    drawing += [_line(line, x, y) for line in lines]
    entries = [(line.colour, line.name, number(line.points[-1][1])) for line in lines if line.name]
    return (
        f'<figure class="chart" style="width:{width}px">{_caption(title)}'
        f'<svg width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)} over steps">{"".join(drawing)}</svg>{legend(entries)}</figure>'
    )


def stacked_bar(title: str, parts: dict[str, float], show: Callable[[float], str]) -> str:
    """One bar as wide as the page of parts (0 or more, not all 0) side by side; `show` writes a value with its unit."""
    total, start, rects, entries = sum(parts.values()), 0.0, [], []
    for i, (name, value) in enumerate(parts.items()):
        share = 100 * value / total
        text = f"{show(value)} ({share:.0f} %)"
        entries.append((i, name, text))
        rects.append(
            f'<rect class="{_colour(i)}" x="{start:.2f}%" width="{share:.2f}%" height="20">'
            f"<title>{escape(name)}: {escape(text)}</title></rect>"
        )
        start += share
    return (
        f'<figure class="bar">{_caption(title, show(total))}<svg width="100%" height="20" role="img"'
        f' aria-label="{escape(title)}">{"".join(rects)}</svg>{legend(entries)}</figure>'
    )


def legend(entries: list[tuple[int, str, str]]) -> str:
    """(colour, name, value) each."""
    items = (f'<li><i class="{_colour(i)}"></i>{escape(name)} <b>{escape(value)}</b></li>' for i, name, value in entries)
    return f'<ul class="legend">{"".join(items)}</ul>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 x 10^k that enclose `low` and `high`, apart by at least (high - low) / count."""
    finest = (high - low) / count
    power = 10.0 ** math.floor(math.log10(finest))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= 0.999 * finest)
    return [i * step for i in range(math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6) + 1)]


def _caption(title: str, value: str = "") -> str:
    return f"<figcaption><b>{escape(title)}</b> {escape(value)}</figcaption>"


def _colour(index: int) -> str:
    return f"s{index % COLOURS}"


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) / 10 or 1.0), high + (abs(high) / 10 or 1.0)
    return (0.0 if 0 < low < high / 3 else low), high


def _grid(x: Axis, x_ticks: list[float], y: Axis, y_ticks: list[float]) -> str:
    horizontal = (
        f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="y" x="{x.start - 7}" y="{y(tick) + 4:.1f}">{number(tick)}</text>'
        for tick in y_ticks
    )
    vertical = (
        f'<line class="axis" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{y.start}" y2="{y.start + 4}"/>'
        f'<text class="x" x="{x(tick):.1f}" y="{y.start + 17}">{number(tick)}</text>'
        for tick in x_ticks
    )
    axis = f'<line class="axis" x1="{x.start}" x2="{x.end}" y1="{y.start}" y2="{y.start}"/>'
    name = f'<text class="x" x="{(x.start + x.end) / 2}" y="{HEIGHT - 4}">step</text>'
    return "".join([*horizontal, axis, *vertical, name])


def _line(line: Line, x: Axis, y: Axis) -> str:
    """The path, broken at gaps (a lone point is a dot: a round-capped line of no length), and points with tooltips."""
    path, pen = [], "M"
    for step, value in line.points:
        if math.isfinite(value):
            path.append(f"{pen}{x(step):.1f} {y(value):.1f}{'h0' if pen == 'M' else ''}")
        pen = "L" if math.isfinite(value) else "M"
    every = math.ceil(len(line.points) / MOST_TOOLTIPS)
    dots = (
        f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="4">'
        f"<title>{escape(line.name)} {number(value)}, step {number(step)}</title></circle>"
        for step, value in line.points[::-1][::every]  # the last point always has one
        if math.isfinite(value)
    )
    seen = " dots" if len(line.points) <= MOST_DOTS else ""
    return f'<g class="{_colour(line.colour)}{seen}"><path d="{"".join(path)}"/>{"".join(dots)}</g>'
