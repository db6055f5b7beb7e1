"""Charts as Vega-Lite specifications, which Altair makes: lines over steps, accuracies by class, and matrices.

Vega reads field names and expressions as programs. All of them are constants here, and whatever comes from data, such as the name
of a class, is a value. The colors are the CSS variables of style.css, so that charts change with the page between light and dark.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mixer_jax.pages.parts import Chart, LegendEntry, number
from mixer_jax.pages.thinning import thin

COLORS = 7  # style.css defines --c0 to --c6
DASHES = ("", "6 3", "2 3", "8 3 2 3")
MAX_NAMES_WITH_COUNTS = 12  # of a confusion matrix
MAX_DOTS = 12  # points of a curve; the points of longer curves are not drawn as dots
MAX_POINTS, MAX_POINTS_OF_CHART = 2000, 16_000  # of a curve after thinning, and of all curves of a chart
LOG_RATIO = 100  # the default of line_chart
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
HEIGHT = 190  # pixels
ROW_HEIGHT = 17  # pixels of a class

CONFIG = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)", "titleColor": "var(--soft)", "gridColor": "var(--faint)", "domainColor": "var(--soft)",
        "tickColor": "var(--soft)", "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "titlePadding": 4,
    },
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
    "axisX": {"grid": False},
}  # fmt: skip


class Series(NamedTuple):
    """A curve of a chart."""

    name: str
    points: Sequence[tuple[float, float]]  # (x, y) with ascending x; the curve is broken where y is not finite
    color: int = 0  # counts the colors of style.css
    dash: int = 0  # counts DASHES


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_title: str = "step",
    log_ratio: float | None = LOG_RATIO,
    is_x_log: bool = False,
) -> Chart:
    """Return a chart of curves. The legend shows the last value of each.

    Args:
      title: the quantity and its unit.
      series: the curves.
      x_title: the name of the x axis.
      log_ratio: If all values are positive, the reader can choose a logarithmic y axis. It is logarithmic at first if the largest
        value is at least this many times the smallest. None: it is always linear.
      is_x_log: whether the x axis is logarithmic. Every x must then be positive.
    """
    finite = [y for curve in series for _, y in curve.points if math.isfinite(y)]
    if not finite:
        return Chart(title, {}, missing="No finite value.")
    styles = tuple((curve.color % COLORS, DASHES[curve.dash % len(DASHES)]) for curve in series)
    legend = [LegendEntry(s.name, number(s.points[-1][1]), *style) for s, style in zip(series, styles, strict=True)]
    limit = _limit([len(curve.points) for curve in series])
    curves = [[(x, _rounded(y)) for x, y in thin(curve.points, limit)] for curve in series]
    is_log = max(finite) / min(finite) >= log_ratio if log_ratio is not None and min(finite) > 0 else None
    dotted = tuple(i for i, curve in enumerate(series) if len(curve.points) <= MAX_DOTS)
    has_zero = 0 < min(finite) < max(finite) / 3
    return Chart(title, _lines(styles, x_title, dotted, has_zero, is_x_log), curves, legend, is_log)


def _limit(lengths: Sequence[int]) -> int:
    """Return how many points a curve may keep. Curves that are short leave their share to the others."""
    share = MAX_POINTS_OF_CHART // len(lengths)
    short = [length for length in lengths if length <= share]
    num_long = len(lengths) - len(short)
    return min(MAX_POINTS, (MAX_POINTS_OF_CHART - sum(short)) // num_long) if num_long else MAX_POINTS


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


@functools.cache
def _lines(
    styles: tuple[tuple[int, str], ...], x_title: str, dotted: tuple[int, ...], has_zero: bool, is_x_log: bool
) -> dict[str, Any]:
    """Return the specification of a line chart. charts.js adds the points (x, y, s), of which s is the number of the series.

    Args:
      styles: the color and the dash of each series.
      x_title: the name of the x axis.
      dotted: the series whose points are drawn as dots.
      has_zero: whether the y axis includes zero.
      is_x_log: whether the x axis is logarithmic. A linear one begins at zero.
    """
    import altair as alt

    numbers = list(range(len(styles)))
    colors = alt.Scale(domain=numbers, range=[f"var(--c{color})" for color, _ in styles])
    dashes = alt.Scale(domain=numbers, range=[[float(length) for length in dash.split()] or [1, 0] for _, dash in styles])
    x_kind = {"type": "log"} if is_x_log else {"domainMin": 0}
    x_scale = alt.Scale(**x_kind, domainRaw=alt.ExprRef("range"), nice=False)
    y_scale = alt.Scale(zero=has_zero)  # charts.js makes it logarithmic if the reader wants that
    x = alt.X(
        "x:Q", title=x_title, scale=x_scale, axis=alt.Axis(labelExpr="replace(format(datum.value, '~s'), 'G', 'B')", tickCount=5)
    )
    y = alt.Y("y:Q", title=None, scale=y_scale, axis=alt.Axis(tickCount=5))
    color = alt.Color("s:O", scale=colors, legend=None)
    dash = alt.StrokeDash("s:O", scale=dashes, legend=None)
    hidden, zoomed = alt.param("hidden", value=[]), alt.param("range", value=None)
    brush = alt.selection_interval(name="brush", encodings=["x"], zoom=False, translate=False)
    is_shown = "indexof(hidden, datum.s) < 0 && (!range || (datum.x >= range[0] && datum.x <= range[1]))"
    points = alt.Chart(alt.NamedData("points")).transform_filter(is_shown)
    lines = points.mark_line(strokeWidth=1.75, strokeCap="round", strokeJoin="round").encode(
        x=x, y=y, color=color, strokeDash=dash
    )
    has_dots = alt.FieldOneOfPredicate("s", list(dotted))
    dots = points.transform_filter(has_dots).mark_point(filled=True, size=24, opacity=1).encode(x=x, y=y, color=color)
    pointer = alt.Chart(alt.NamedData("pointer"))
    rule = pointer.mark_rule(color="var(--rule)").encode(x=x)
    values = pointer.mark_point(filled=True, size=36, opacity=1).encode(x=x, y=y, color=color)
    layers = [lines.add_params(brush), *([dots] if dotted else []), rule, values]
    return make_spec(alt.layer(*layers).add_params(hidden, zoomed), {"points": [], "pointer": []})


def class_chart(title: str, names: Sequence[str], examples: Sequence[int], right: Sequence[int]) -> Chart:
    """Return a chart with a dot for the accuracy of each class, from top to bottom in the given order.

    Args:
      title: what the classes are.
      names: the names of the classes.
      examples: the number of examples of each class, at least 1.
      right: the number of those that are classified right.
    """
    import altair as alt

    rows = [
        {"i": i, "name": name, "accuracy": 100 * r / n, "text": f"{100 * r / n:.1f} % ({r} of {n})"}
        for i, (name, n, r) in enumerate(zip(names, examples, right, strict=True))
    ]
    accuracy = alt.X("accuracy:Q", title="accuracy, %", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5, grid=True))
    dots = (
        alt.Chart(alt.NamedData("rows"))
        .mark_circle(color="var(--c0)", size=60, opacity=1)
        .encode(
            x=accuracy,
            y=alt.Y("i:O", title=None, axis=_names_axis(alt, labelLimit=140, grid=True)),
            tooltip=tooltip(alt, "name", "class", "text", "accuracy"),
        )
    )
    return Chart(title, make_spec(dots.add_params(alt.param("names", value=list(names))), {"rows": rows}, ROW_HEIGHT * len(rows)))


def histogram(title: str, values: Sequence[float], x_title: str, y_title: str) -> Chart:
    """Return a chart that counts values from 0 to 100 in ten bins."""
    import altair as alt

    bins = alt.Bin(extent=[0, 100], step=10)
    bars = (
        alt.Chart(alt.NamedData("rows"))
        .mark_bar(color="var(--c0)")
        .encode(
            x=alt.X("value:Q", bin=bins, title=x_title),
            y=alt.Y("count()", title=y_title, axis=alt.Axis(tickCount=5, tickMinStep=1)),
            tooltip=alt.Tooltip("count()", title=y_title),
        )
    )
    return Chart(title, make_spec(bars, {"rows": [{"value": value} for value in values]}))


def confusion_chart(title: str, names: Sequence[str], counts: np.ndarray) -> Chart:
    """Return a chart of a confusion matrix, int64 [K, K]: a row for each true class, and a column for each predicted class.

    A cell is darker, the larger its share of the row. The diagonal has another color than the mistakes. The cells of a small
    matrix have their counts as text.
    """
    import altair as alt

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        {
            "i": i, "j": j, "share": float(shares[i, j]), "mistake": int(i != j), "true": names[i], "predicted": names[j],
            "count": int(counts[i, j]), "text": f"{counts[i, j]} of {counts[i].sum()}",
        }
        for i, j in np.argwhere(counts).tolist()
    ]  # fmt: skip
    numbers = list(range(len(names)))
    colors = alt.Scale(domain=[0, 1], range=["var(--c0)", "var(--c1)"])
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X("j:O", title="predicted", scale=alt.Scale(domain=numbers), axis=_names_axis(alt, labelAngle=-90, labelLimit=80)),
        y=alt.Y("i:O", title="is", scale=alt.Scale(domain=numbers), axis=_names_axis(alt, labelLimit=140)),
        tooltip=tooltip(alt, "true", "is", "predicted", "predicted", "text", "examples"),
    )
    cells = base.mark_rect().encode(
        color=alt.Color("mistake:N", scale=colors, legend=None),
        opacity=alt.Opacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0, 1]), legend=None),
    )
    if len(names) <= MAX_NAMES_WITH_COUNTS:
        on_dark = alt.condition("datum.share > 0.4", alt.value("var(--paper)"), alt.value("var(--ink)"))
        cells += base.mark_text(fontSize=11).encode(text="count:Q", color=on_dark)
    return Chart(
        title, make_spec(cells.add_params(alt.param("names", value=list(names))), {"rows": rows}, ROW_HEIGHT * len(names))
    )


def _names_axis(alt: Any, **options: Any) -> Any:
    """Return an axis whose values are indices into the parameter `names`, which has the labels."""
    return alt.Axis(labelExpr="names[datum.value]", ticks=False, domain=False, labelPadding=6, **options)


def tooltip(alt: Any, *fields_and_titles: str) -> list[Any]:
    """Return a tooltip with a line for each field: a field, its title, the next field, and so on."""
    pairs = zip(fields_and_titles[::2], fields_and_titles[1::2], strict=True)
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in pairs]


def make_spec(chart: Any, datasets: dict[str, list], height: int = HEIGHT) -> dict[str, Any]:
    """Return the specification of an Altair chart that is as wide as its place on the page."""
    chart = chart.properties(width="container", height=height, autosize={"type": "fit-x", "contains": "padding"})
    spec = chart.to_dict() | {"datasets": datasets, "config": CONFIG}
    del spec["$schema"]  # It is a URL, which nothing reads.
    return spec
