"""Charts of points: what is drawn, on which axis, and that no text of the data is evaluated."""

import json
import math
import xml.etree.ElementTree as ElementTree

import pytest
import vl_convert

from mixer_jax.pages.scatter import Point, point_chart

HOSTILE = "datum.x) + alert('</script>')"
POINTS = [
    Point(10.0, 70.0, "a", "red things", "round"),
    Point(100.0, 80.0, "b", "blue things", "square", is_dashed=True),
    Point(1000.0, 90.0, "c", "blue things", "round", is_filled=True),
]


def drawn(points, **options) -> ElementTree.Element:
    spec = point_chart("Title", points, "cost", **options).spec | {"width": 600}
    return ElementTree.fromstring(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))


def marks(svg: ElementTree.Element) -> list[tuple[float, float, dict]]:
    """Return (x, y, attributes) of the points in the order in which they are drawn."""
    found = []
    for group in svg.iter("{http://www.w3.org/2000/svg}g"):
        if "mark-symbol" in group.get("class", "") and "layer_" in group.get("class", ""):
            for path in group.iter("{http://www.w3.org/2000/svg}path"):
                x, y = path.get("transform").removeprefix("translate(").rstrip(")").split(",")
                found.append((float(x), float(y), path.attrib))
    return found


def test_equal_factors_are_equally_far_apart_on_a_logarithmic_axis_and_not_on_a_linear_one():
    (x1, y1, _), (x2, y2, _), (x3, y3, _) = marks(drawn(POINTS, is_log=True))
    assert x3 - x2 == pytest.approx(x2 - x1, abs=0.01) and x2 > x1
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.01) and y2 < y1
    (x1, *_), (x2, *_), (x3, *_) = marks(drawn(POINTS, is_log=False))
    assert (x3 - x2) / (x2 - x1) == pytest.approx(10, rel=1e-3)


def test_points_are_hollow_dashed_or_filled_in_the_color_of_their_name():
    (_, _, first), (_, _, dashed), (_, _, filled) = marks(drawn(POINTS, is_log=True))
    assert (first["stroke"], dashed["stroke"], filled["fill"]) == ("var(--c0)", "var(--c1)", "var(--c1)")
    assert {point.get("fill", "none") for point in (first, dashed)} <= {"none", "transparent"}
    assert dashed["stroke-dasharray"] == "2,2" and first["stroke-dasharray"] != "2,2"


def test_points_that_are_not_filled_have_names_and_the_legends_have_those_of_colors_and_shapes():
    texts = ["".join(element.itertext()) for element in drawn(POINTS, is_log=True).iter("{http://www.w3.org/2000/svg}text")]
    assert {"a", "b", "red things", "blue things", "round", "square"} <= set(texts) and "c" not in texts
    one_kind = [point._replace(color="x", shape="y") for point in POINTS]
    texts = ["".join(element.itertext()) for element in drawn(one_kind, is_log=True).iter("{http://www.w3.org/2000/svg}text")]
    assert not {"x", "y"} & set(texts), "a legend with one entry says nothing"


def test_a_text_of_the_data_is_a_value_of_rows_or_of_a_parameter():
    hostile = Point(1.0, 2.0, HOSTILE, HOSTILE, HOSTILE, note=HOSTILE)
    spec = point_chart("Title", [hostile, POINTS[0]], "cost", is_log=True).spec
    assert [row["name"] for row in spec.pop("datasets")["rows"]] == [HOSTILE, "a"]
    text = json.dumps(spec, allow_nan=False)
    for names in ([HOSTILE, "red things"], [HOSTILE, "round"]):  # the values of the two parameters
        assert json.dumps(names) in text
        text = text.replace(json.dumps(names), "")
    assert "alert" not in text


def test_a_point_that_a_logarithmic_axis_cannot_have_is_left_out():
    points = [POINTS[0]._replace(x=0.0), POINTS[1]]
    assert [row["name"] for row in point_chart("", points, "cost", is_log=True).spec["datasets"]["rows"]] == ["b"]
    assert point_chart("", points[:1], "cost", is_log=True).missing == "No point."
    assert len(point_chart("", points, "cost", is_log=False).spec["datasets"]["rows"]) == 2
    assert all(math.isfinite(x) for x, _, _ in marks(drawn(points, is_log=True)))
