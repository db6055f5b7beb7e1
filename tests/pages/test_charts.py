import json
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import vl_convert

from mixer_jax.pages.charts import (
    COLORS,
    MAX_POINTS,
    MAX_POINTS_OF_CHART,
    Series,
    class_chart,
    confusion_chart,
    histogram,
    line_chart,
)

HOSTILE = ["a.b[0]", "</script><script>", "datum.x)", "' + alert(1) + '", "\u2028", "\ud800"]


def strings(content):
    """Yield every string within JSON, names included."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield name
            yield from strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from strings(value)
    elif isinstance(content, str):
        yield content


def test_nothing_from_data_is_in_a_specification_which_vega_would_evaluate():
    chart = line_chart("Loss", [Series(name, [(1, 1.0), (2, 2.0)], i) for i, name in enumerate(HOSTILE)])
    assert [entry.name for entry in chart.legend] == HOSTILE
    assert not [text for text in strings(chart.spec) if any(name in text for name in HOSTILE)]
    json.dumps(chart.spec, allow_nan=False)


@pytest.mark.parametrize("make", [class_chart, confusion_chart])
def test_names_of_classes_are_values_of_rows_and_of_one_parameter(make):
    counts = np.ones((len(HOSTILE), len(HOSTILE)), int)
    chart = make("Classes", HOSTILE, *([counts] if make is confusion_chart else [[2] * len(HOSTILE), [1] * len(HOSTILE)]))
    spec = json.loads(json.dumps(chart.spec, allow_nan=False))
    (names,) = (parameter for parameter in spec["params"] if parameter["name"] == "names")
    assert names.pop("value") == HOSTILE and spec.pop("datasets").keys() == {"rows"}
    assert not [text for text in strings(spec) if any(name in text for name in HOSTILE)]


def test_a_cell_of_a_confusion_matrix_has_its_share_of_the_true_class():
    cells = confusion_chart("", ["a", "b"], np.array([[3, 1], [0, 0]])).spec["datasets"]["rows"]
    assert [(cell["i"], cell["j"], cell["share"], cell["mistake"], cell["text"]) for cell in cells] == [
        (0, 0, 0.75, 0, "3 of 4"),
        (0, 1, 0.25, 1, "1 of 4"),
    ]


NAMES = HOSTILE[:-1]  # This converter to SVG, unlike a browser, refuses half a character.
CHARTS = {
    "lines": line_chart("", [Series(name, [(1, 1.0), (2, math.nan), (3, 4.0)], i) for i, name in enumerate(NAMES)]),
    "classes": class_chart("", NAMES, [2] * len(NAMES), [1] * len(NAMES)),
    "confusions": confusion_chart("", NAMES, np.eye(len(NAMES), dtype=int)),
    "histogram": histogram("", [10.0, 15.0, 100.0], "accuracy, %", "classes"),
}
MARKS = {"lines": len(NAMES), "classes": len(NAMES), "confusions": len(NAMES), "histogram": 2}


@pytest.mark.parametrize("name", CHARTS)
def test_vega_draws_a_specification_with_a_mark_for_each_value(name):
    spec, curves = CHARTS[name].spec, CHARTS[name].curves
    points = [{"x": x, "y": y, "s": s} for s, curve in enumerate(curves or []) for x, y in curve]  # as charts.js does
    spec = spec | {"width": 400, "datasets": spec["datasets"] | ({"points": points} if curves else {})}
    svg = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))
    colored = [element for element in svg.iter() if "var(--c" in element.get("stroke", "") + element.get("fill", "")]
    assert len(colored) >= MARKS[name]
    assert "NaN" not in ElementTree.tostring(svg, encoding="unicode")


def test_a_specification_names_no_address():
    assert not [text for text in strings(line_chart("Loss", [Series("a", [(1, 1.0)])]).spec) if "//" in text or text == "url"]


def test_short_curves_have_dots_and_every_layer_has_what_charts_js_changes():
    long, short = [(x, 1.0 + x) for x in range(99)], [(1, 1.0), (2, 3.0)]
    layers = line_chart("Loss", [Series("a", long), Series("b", short)]).spec["layer"]
    assert [layer["mark"]["type"] for layer in layers] == ["line", "point", "rule", "point"]
    assert layers[1]["transform"][-1] == {"filter": {"field": "s", "oneOf": [1]}}
    assert all("encoding" in layer for layer in layers) and "y" in layers[0]["encoding"]
    assert len(line_chart("Loss", [Series("a", long)]).spec["layer"]) == 3


def test_the_legend_shows_last_values_and_the_curves_are_in_its_order():
    chart = line_chart("Loss", [Series("a", [(1, 3.0), (2, 67.7777)]), Series("b", [(5, 0.5)], color=COLORS + 1, dash=1)])
    assert [(entry.name, entry.value, entry.color) for entry in chart.legend] == [("a", "67.78", 0), ("b", "0.5", 1)]
    assert chart.legend[0].dash != chart.legend[1].dash
    assert chart.curves == [[(1, 3.0), (2, 67.7777)], [(5, 0.5)]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_gap(value):
    assert line_chart("Loss", [Series("", [(1, 1.0), (2, value), (3, 2.0)])]).curves == [[(1, 1.0), (2, None), (3, 2.0)]]


@pytest.mark.parametrize("points", [[], [(1, math.nan)]])
def test_a_chart_without_a_finite_value_says_so(points):
    assert line_chart("Loss", [Series("", points)]).missing == "No finite value."


@pytest.mark.parametrize(
    ("values", "is_log"),
    [((1.0, 2.0), False), ((0.01, 2.0), True), ((0.0, 2.0), None), ((-1.0, 1.0), None), ((2.0, math.nan, 1e30), True)],
)
def test_a_logarithmic_axis_is_offered_for_positive_values_and_chosen_for_a_wide_range(values, is_log):
    series = [Series("", list(enumerate(values)))]
    assert line_chart("Loss", series).is_log is is_log
    assert line_chart("Loss", series, log_ratio=None).is_log is None


@pytest.mark.parametrize("num_curves", [1, 20, 100])
def test_a_chart_of_a_million_steps_stays_small_and_short_curves_stay_whole(num_curves):
    points = [(50 * i, 1 / (1 + i)) for i in range(20_000)]
    chart = line_chart("Loss", [Series("", points)] * num_curves + [Series("", points[:20])] * num_curves)
    assert sum(map(len, chart.curves)) <= MAX_POINTS_OF_CHART and len(json.dumps(chart.curves)) < 400_000
    assert [len(curve) for curve in chart.curves[num_curves:]] == [20] * num_curves
    assert 50 < max(map(len, chart.curves)) <= MAX_POINTS


def test_an_x_axis_is_linear_from_zero_or_logarithmic():
    series = [Series("a", [(9e6, 1.0), (3e9, 2.0)])]
    scales = [line_chart("", series, is_x_log=is_log).spec["layer"][0]["encoding"]["x"]["scale"] for is_log in (False, True)]
    assert [(scale.get("type"), scale.get("domainMin")) for scale in scales] == [(None, 0), ("log", None)]
