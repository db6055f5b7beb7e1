"""The charts of an exhibit: our points over the paper's, with the axes of the paper's figures.

Accuracy over throughput and over core-days has logarithmic x axes, as Figures 2 (left) and 3 have. Table 3 has the axes of
Figure 3. Figure 2 (right) is over the number of images, which is logarithmic, and Figure 4 over steps.
"""

import re
from typing import NamedTuple

from mixer_jax.pages.charts import Series, line_chart
from mixer_jax.pages.parts import Chart, Charts, Part, Text
from mixer_jax.pages.scatter import Point, point_chart
from mixer_jax.reproduction.exhibit import ACCURACY, DIGITIZED, PLANNED

ACCURACY_COLUMN = "imagenet"
FAMILIES = ("Mixer", "ViT", "BiT", "other models")
FACTORS = {"k": 1e3, "M": 1e6, "B": 1e9}
X_TITLES = {"core_days": "core-days of pre-training on TPU v3", "throughput": "images/s per core of TPU v3"}
POINTS = (
    "Hollow points are the paper\u2019s. Their outline is dashed if one of the two figures was read off a drawing. Filled points "
    "are ours. They stand at the planner\u2019s estimate of the cost or the speed or, without one, at the paper\u2019s figure."
)
NO_POINTS = " There is no point of ours yet."
CURVES = "Dashed curves are the paper\u2019s, read off its drawing. Solid curves are ours."
NO_CURVES = " There is no curve of ours yet."


class Curves(NamedTuple):
    """What the columns of an exhibit are if its accuracies are curves over them."""

    x_title: str
    is_log: bool


CURVES_OVER = {"figure2": Curves("images of pre-training", True), "figure4": Curves("step", False)}


def charts_of(exhibit: str, part: dict) -> list[Part]:
    """Return the charts of a part of an exhibit and a line that explains them, or [] if it has nothing to draw.

    Args:
      exhibit: the word of the exhibit.
      part: one of the "parts" that `show.figures_of` returned.
    """
    columns = {cell["column"]: cell["kind"] for row in part["rows"] for cell in row["cells"]}
    if exhibit in CURVES_OVER and all(kind == ACCURACY and _number(name) for name, kind in columns.items()):
        return _curves(part, CURVES_OVER[exhibit])
    if columns.get(ACCURACY_COLUMN) != ACCURACY:
        return []
    charts, has_ours = [], False
    for x in (name for name in X_TITLES if columns.get(name) == PLANNED):
        points = [point for row in part["rows"] for point in _points(row, x)]
        points.sort(key=lambda point: FAMILIES.index(point.color))  # So that families have the same colors in all charts.
        has_ours |= any(point.is_filled for point in points)
        charts.append(Charts([point_chart(f"ImageNet top-1, %, over {X_TITLES[x]}", points, X_TITLES[x], is_log=True)]))
    return [*charts, Text(POINTS + NO_POINTS * (not has_ours))] if charts else []


def _points(row: dict, x_column: str) -> list[Point]:
    """Return the paper's point of a row and ours, as far as there are any."""
    cells = {cell["column"]: cell for cell in row["cells"]}
    if ACCURACY_COLUMN not in cells or x_column not in cells:
        return []
    x, y = cells[x_column], cells[ACCURACY_COLUMN]
    name, _, settings = row["label"].partition(", ")
    family = name.partition("-")[0] if name.startswith(FAMILIES[:-1]) else FAMILIES[-1]
    points = []
    if isinstance(x["paper"], float) and isinstance(y["paper"], float):
        is_digitized = DIGITIZED in (x["source"], y["source"])
        source = "the paper" + (", read off a drawing" if is_digitized else "")
        points.append(Point(x["paper"], y["paper"], _short(name, settings), family, row["group"], False, is_digitized, source))
    x_ours = x["ours"] if isinstance(x["ours"], float) else x["paper"]
    if isinstance(y["ours"], float) and isinstance(x_ours, float):
        runs = f"{y['num_runs']} run{'s' * (y['num_runs'] != 1)}"
        source = f"ours, {y['status']}, {runs}; x: {x['status'] if x_ours == x['ours'] else 'the paper'}"
        points.append(Point(x_ours, y["ours"], row["label"], family, row["group"], True, False, source))
    return points


def _short(name: str, settings: str) -> str:
    """Return a name for a chart: without marks and family, which the color shows, and with an image size other than 224."""
    model = re.sub(r" [\[(].*", "", name)
    family, _, size = model.partition("-")
    model = size if family in FAMILIES else model
    pixels = re.search(r"(\d+) pixels", settings)
    return f"{model}, {pixels[1]} px" if pixels and pixels[1] != "224" else model


def _number(name: str) -> float | None:
    """Return the number that a column is named by, such as 9M, or None."""
    match = re.fullmatch(r"(\d+)([kMB])", name)
    return int(match[1]) * FACTORS[match[2]] if match else None


def _curves(part: dict, over: Curves) -> list[Part]:
    """Return a chart with the paper's curve of each row and, where there are figures of ours, with our curve over it."""
    groups = len({row["group"] for row in part["rows"]}) > 1
    series = []
    for color, row in enumerate(part["rows"]):
        name = f"{row['group']}, {row['label']}" if groups else row["label"]
        for key, dash, suffix in (("paper", 1, ""), ("ours", 0, " (ours)")):
            curve = [(_number(cell["column"]), cell[key]) for cell in row["cells"] if isinstance(cell[key], float)]
            if curve:
                series.append(Series(name + suffix, curve, color, dash))
    has_ours = any(curve.dash == 0 for curve in series)
    title = "Linear 5-shot ImageNet top-1, %"
    chart: Chart = line_chart(title, series, x_title=over.x_title, log_ratio=None, is_x_log=over.is_log)
    return [Charts([chart]), Text(CURVES + NO_CURVES * (not has_ours))]
