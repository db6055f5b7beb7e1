import math
import re

import pytest

from mixer_jax.report.document import number, paragraph, section, table, write_page

HOSTILE = "<script>alert('&')</script>"


def test_every_text_is_escaped(tmp_path):
    parts = [section(HOSTILE, paragraph(HOSTILE), table([HOSTILE], [[HOSTILE]], caption=HOSTILE, notes=[HOSTILE]))]
    write_page(tmp_path / "page.html", HOSTILE, HOSTILE, parts)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") == 9


def test_a_page_is_written_into_a_folder_that_does_not_exist_yet(tmp_path):
    write_page(tmp_path / "a" / "b" / "page.html", "Title", "Lead.", [])
    assert "<h1>Title</h1>" in (tmp_path / "a" / "b" / "page.html").read_text()


def test_columns_of_numbers_are_right_aligned_and_the_first_never():
    html = table(["10", "note", "top-1"], [["10", "5 and more", "93.1 %"], ["20", "none", "\u2013"]])
    assert re.findall(r"<td( class=\"num\")?>", html) == ["", "", ' class="num"'] * 2
    assert re.findall(r"<th( class=\"num\")?>", html) == ["", "", ' class="num"']


def test_exactly_the_chosen_row_is_emphasized():
    rows = re.findall(r'<tr class="(.*?)">', table(["a"], [["x"], ["y"], ["z"]], emphasize=1))
    assert rows == ["", "best", ""]


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0"), (93835, "93\u202f835"), (59_880_472, "59\u202f880\u202f472"), (67.7777, "67.78"), (0.0005, "0.0005"),
        (2e-5, "2e\u22125"), (-1.5, "\u22121.5"), (43210.7, "43\u202f210"), (1.5e12, "1.5e12"), (0.1 + 0.2, "0.3"),
        (math.nan, "not finite"), (math.inf, "not finite"),
    ],
)  # fmt: skip
def test_numbers_are_written_short_and_without_losing_whole_ones(value, text):
    assert number(value) == text


def test_half_a_character_in_a_name_does_not_cost_the_page(tmp_path):
    write_page(tmp_path / "page.html", "a \ud800 class", "Lead.", [])
    assert "<h1>a ? class</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
