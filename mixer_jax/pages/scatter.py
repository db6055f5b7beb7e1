"""A chart of points in two quantities, such as accuracy over cost, in which two sources can be compared.

As in charts.py, the names of fields are constants, and whatever comes from data is a value.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mixer_jax.pages.charts import COLORS, make_spec, tooltip
from mixer_jax.pages.parts import Chart

HEIGHT = 340  # pixels
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
SIZE = 70  # square pixels of a point
LEGEND = {
    "direction": "horizontal", "title": None, "labelColor": "var(--ink)", "labelFontSize": 12,
    "symbolStrokeColor": "var(--soft)", "symbolType": "circle", "symbolSize": SIZE, "labelLimit": 240,
}  # fmt: skip


class Point(NamedTuple):
    """A point of a chart."""

    x: float
    y: float
    name: str  # what it is, also beside the point
    color: str  # the name of its color in the legend
    shape: str  # the name of its shape in the legend
    is_filled: bool = False
    is_dashed: bool = False  # the outline of a point that is not filled
    note: str = ""  # a line of the tooltip


def point_chart(title: str, points: Sequence[Point], x_title: str, *, is_log: bool) -> Chart:
    """Return a chart of points. Filled points are drawn over the others. The points that are not filled have names beside them.

    Args:
      title: what the points are: the quantity of the y axis, which is linear, and its unit.
      points: the points.
      x_title: the name and the unit of the x axis.
      is_log: whether the x axis is logarithmic. Then points with an x that is not positive are left out.
    """
    import altair as alt

    points = [point for point in points if point.x > 0 or not is_log]
    if not points:
        return Chart(title, {}, missing="No point.")
    colors = list(dict.fromkeys(point.color for point in points))
    shapes = list(dict.fromkeys(point.shape for point in points))
    rows = [
        point._asdict() | {"c": colors.index(point.color) % COLORS, "s": shapes.index(point.shape) % len(SHAPES)}
        for point in points
    ]
    x = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(type="log" if is_log else "linear", nice=False, zero=False, padding=24),
        axis=alt.Axis(format="~s", tickCount=5, grid=True, labelOverlap=True),
    )
    y = alt.Y("y:Q", title=None, scale=alt.Scale(zero=False, padding=16), axis=alt.Axis(tickCount=6))
    numbers = list(range(len(colors)))
    color_scale = alt.Scale(domain=numbers[:COLORS], range=[f"var(--c{number})" for number in numbers[:COLORS]])
    shape_scale = alt.Scale(domain=list(range(len(SHAPES))), range=list(SHAPES))
    encoding = {
        "x": x,
        "y": y,
        "color": alt.Color("c:O", scale=color_scale, legend=_legend(alt, "top", "colorNames", numbers[:COLORS])),
        "shape": alt.Shape(
            "s:O", scale=shape_scale, legend=_legend(alt, "bottom", "shapeNames", list(range(len(shapes)))[: len(SHAPES)])
        ),
        "tooltip": tooltip(alt, "name", "point", "shape", "group", "x", x_title, "y", "y", "note", "source"),
    }
    base = alt.Chart(alt.NamedData("rows"))
    hollow = base.transform_filter("!datum.is_filled")
    dashes = alt.condition("datum.is_dashed", alt.value([2, 2]), alt.value([1, 0]))
    names = hollow.mark_text(align="left", dx=7, dy=1, fontSize=10, color="var(--soft)").encode(x=x, y=y, text="name:N")
    outlines = hollow.mark_point(filled=False, size=SIZE, strokeWidth=1.5, opacity=1).encode(strokeDash=dashes, **encoding)
    filled = base.transform_filter("datum.is_filled").mark_point(filled=True, size=SIZE, opacity=1).encode(**encoding)
    parameters = [alt.param("colorNames", value=colors[:COLORS]), alt.param("shapeNames", value=shapes[: len(SHAPES)])]
    return Chart(title, make_spec(alt.layer(names, outlines, filled).add_params(*parameters), {"rows": rows}, HEIGHT))


def _legend(alt: Any, orient: str, names: str, values: Sequence[int]) -> Any:
    """Return a legend whose values are indices into the parameter `names`, or None for a single value."""
    return (
        alt.Legend(orient=orient, labelExpr=f"{names}[datum.value]", values=list(values), **LEGEND) if len(values) > 1 else None
    )
