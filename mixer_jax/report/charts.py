"""Charts as SVG within well-formed HTML: lines over steps, and a stacked bar. They need no picture files and no plotting library.

The colors are the CSS classes s0, s1, ... of style.py, so that charts change with the page between light and dark. sections.py
chooses which figures of a run are drawn.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from mixer_jax.report.document import number

HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 190, 46, 12, 8, 36  # pixels: the height of the drawing, and the margins around the plot
MAX_DOTS = 12  # points of a line; the points of longer lines are not drawn as dots
MAX_TOOLTIPS = 100  # points of a line that have a tooltip
COLORS = 7


class Line(NamedTuple):
    """A line of a chart."""

    name: str  # as the legend shows it; a line without a name is not in the legend
    points: Sequence[tuple[float, float]]  # (x, y) with ascending x; the line is broken where y is not finite
    color: int = 0  # number of the CSS class s0, s1, ...


class Axis(NamedTuple):
    """The linear map from the values of an axis to pixels."""

    low: float
    high: float
    start: float  # the pixel of `low`
    end: float  # the pixel of `high`

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(title: str, lines: Sequence[Line], *, width: int = 340) -> str:
    """Return a figure of lines over steps, which begin at 0.

    The legend shows the last value of every line. The y axis includes zero if that takes less than a third of it. Points that
    are not finite are left out. If no finite point is left, the figure says so.

    Args:
      title: the quantity and its unit.
      lines: the lines.
      width: the width of the figure in pixels.
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
    entries = [(line.color, line.name, number(line.points[-1][1])) for line in lines if line.name]
    return (
        f'<figure class="chart" style="width:{width}px">{_caption(title)}'
        f'<svg width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)} over steps">{"".join(drawing)}</svg>{legend(entries)}</figure>'
    )


def stacked_bar(title: str, parts: dict[str, float], show: Callable[[float], str]) -> str:
    """Return a bar as wide as the page, with the parts side by side.

    Args:
      title: what the bar shows.
      parts: {name: value}; the values are 0 or more and not all 0.
      show: formats a value with its unit.
    """
    total, start, rects, entries = sum(parts.values()), 0.0, [], []
    for i, (name, value) in enumerate(parts.items()):
        share = 100 * value / total
        text = f"{show(value)} ({share:.0f} %)"
        entries.append((i, name, text))
        rects.append(
            f'<rect class="{_color(i)}" x="{start:.2f}%" width="{share:.2f}%" height="20">'
            f"<title>{escape(name)}: {escape(text)}</title></rect>"
        )
        start += share
    return (
        f'<figure class="bar">{_caption(title, show(total))}<svg width="100%" height="20" role="img"'
        f' aria-label="{escape(title)}">{"".join(rects)}</svg>{legend(entries)}</figure>'
    )


def legend(entries: list[tuple[int, str, str]]) -> str:
    """Return a legend of entries (color, name, value)."""
    items = (f'<li><i class="{_color(color)}"></i>{escape(name)} <b>{escape(value)}</b></li>' for color, name, value in entries)
    return f'<ul class="legend">{"".join(items)}</ul>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return consecutive multiples of 1, 2 or 5 times a power of 10 that enclose `low` and `high`.

    Their distance is the smallest that is at least (high - low) / count.
    """
    min_step = (high - low) / count
    power = 10.0 ** math.floor(math.log10(min_step))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= 0.999 * min_step)
    return [i * step for i in range(math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6) + 1)]


def _caption(title: str, value: str = "") -> str:
    return f"<figcaption><b>{escape(title)}</b> {escape(value)}</figcaption>"


def _color(index: int) -> str:
    return f"s{index % COLORS}"


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
    """Return the path of a line and circles with tooltips for its points.

    The path is broken at points that are not finite. A point between two gaps appears as a dot: "h0" draws a line of length 0,
    which has round caps.
    """
    path, pen = [], "M"
    for step, value in line.points:
        if math.isfinite(value):
            path.append(f"{pen}{x(step):.1f} {y(value):.1f}{'h0' if pen == 'M' else ''}")
        pen = "L" if math.isfinite(value) else "M"
    stride = math.ceil(len(line.points) / MAX_TOOLTIPS)
    dots = (
        f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="4">'
        f"<title>{escape(line.name)} {number(value)}, step {number(step)}</title></circle>"
        for step, value in line.points[::-1][::stride]  # Counting from the end gives the last point a tooltip.
        if math.isfinite(value)
    )
    dots_class = " dots" if len(line.points) <= MAX_DOTS else ""
    return f'<g class="{_color(line.color)}{dots_class}"><path d="{"".join(path)}"/>{"".join(dots)}</g>'
