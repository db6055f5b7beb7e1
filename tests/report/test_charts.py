import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from mixer_jax.report.charts import HEIGHT, MAX_TOOLTIPS, Line, line_chart, stacked_bar, ticks


def paths(figure):
    return [path.get("d") for path in ElementTree.fromstring(figure).iter("path")]


def vertices(path):
    return [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([-\d.]+ [-\d.]+)", path)]


def test_a_chart_is_well_formed_and_has_a_vertex_for_every_point():
    points = [(step, 1 / step) for step in range(1, 300)]
    (path,) = paths(line_chart("Loss", [Line("training", points)]))
    assert len(vertices(path)) == len(points)


def test_larger_values_stand_higher_and_all_stand_inside_the_drawing():
    (path,) = paths(line_chart("Loss", [Line("", [(10, -3.0), (20, 5.0), (30, 40.0)])], width=200))
    xs, ys = zip(*vertices(path), strict=True)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys, reverse=True)
    assert 0 < min(xs) <= max(xs) < 200 and 0 < min(ys) <= max(ys) < HEIGHT


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_breaks_the_line_and_nothing_else(value):
    figure = line_chart("Loss", [Line("", [(1, 1.0), (2, value), (3, 2.0), (4, 3.0)])])
    (path,) = paths(figure)
    assert len(vertices(path)) == 3 and path.count("M") == 2
    assert "nan" not in figure and "inf" not in figure


@pytest.mark.parametrize("points", [[], [(1, math.nan)]])
def test_a_chart_without_a_finite_value_says_so(points):
    figure = line_chart("Loss", [Line("", points)])
    assert "No finite value" in figure and not paths(figure)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-9, 1e30])
def test_a_constant_has_an_axis_around_it(value):
    (path,) = paths(line_chart("Loss", [Line("", [(1, value), (2, value)])]))
    assert all(0 < y < HEIGHT for _, y in vertices(path))


@pytest.mark.parametrize("low, high", [(0, 1), (0.47, 2.31), (-3, 7), (0, 93835), (1e-7, 3e-7), (2.1, 2.100001), (-5, -4)])
def test_ticks_enclose_the_range_with_few_round_numbers(low, high):
    values = ticks(low, high, 4)
    assert values[0] <= low + 1e-6 * (high - low) and values[-1] >= high - 1e-6 * (high - low) and 3 <= len(values) <= 6
    step = values[1] - values[0]
    leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(leading - round_) for round_ in (1, 2, 5, 10)) < 1e-3


def test_zero_is_on_the_axis_only_where_it_is_near():
    labels = [
        [text.text for text in ElementTree.fromstring(line_chart("", [Line("", points)])).iter("text")]
        for points in ([(1, 0.5), (2, 9.0)], [(1, 8.0), (2, 9.0)])
    ]
    y_labels = [row[: row.index("step")] for row in labels]
    assert y_labels[0][0] == "0" and y_labels[1][0] != "0"


def test_a_long_line_keeps_its_points_but_not_a_tooltip_for_each():
    points = [(step, 1.0 + step) for step in range(10_000)]
    figure = line_chart("Loss", [Line("", points)])
    circles = list(ElementTree.fromstring(figure).iter("circle"))
    assert len(vertices(paths(figure)[0])) == 10_000 and len(circles) <= MAX_TOOLTIPS
    assert "step 9\u202f999" in circles[0].find("title").text


def test_names_are_escaped():
    figure = line_chart("<i>&", [Line("<script>", [(1, 1.0), (2, 2.0)])]) + stacked_bar("<b>", {"<u>": 1.0}, str)
    ElementTree.fromstring(f"<div>{figure}</div>")
    assert not re.search(r"<(script|u)>", figure)


def test_a_bar_is_filled_in_proportion_and_its_legend_names_every_part():
    figure = stacked_bar("Time", {"compiling": 1.0, "waiting": 3.0, "nothing": 0.0}, lambda s: f"{s:.0f} s")
    rects = list(ElementTree.fromstring(figure).iter("rect"))
    assert [(rect.get("x"), rect.get("width")) for rect in rects] == [
        ("0.00%", "25.00%"),
        ("25.00%", "75.00%"),
        ("100.00%", "0.00%"),
    ]
    items = ["".join(item.itertext()) for item in ElementTree.fromstring(figure).iter("li")]
    assert items == ["compiling 1 s (25 %)", "waiting 3 s (75 %)", "nothing 0 s (0 %)"]
