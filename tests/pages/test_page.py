import ast
import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from conftest import ROOT

from mixer_jax.errors import UserError
from mixer_jax.pages import parts
from mixer_jax.pages.charts import Series, line_chart
from mixer_jax.pages.page import check_installed, refuse_other_file, write_page
from mixer_jax.pages.parts import (
    Bar,
    BarPart,
    Bars,
    Charts,
    Folded,
    LegendEntry,
    Listing,
    Pairs,
    Picture,
    Section,
    Sheet,
    Table,
    Text,
    number,
)

HOSTILE = "</script><script>alert('&')</script><!--\u2028"
PICTURE = Picture("data:image/png;base64,", 8, 8, True, HOSTILE, (HOSTILE, HOSTILE), True)
CHART = line_chart(HOSTILE, [Series(HOSTILE, [(1, 1.0), (2, 300.0)])])
# Every class of parts.py, with a hostile text wherever it may have one.
PARTS = [
    Text(HOSTILE),
    Text(HOSTILE, is_missing=True),
    Table([HOSTILE], [[HOSTILE]], notes=[HOSTILE]),
    parts.Facts({HOSTILE: HOSTILE}),
    parts.Definitions([(HOSTILE, HOSTILE)]),
    Listing([HOSTILE]),
    Folded(HOSTILE, HOSTILE, [Text(HOSTILE)]),
    Charts([CHART, CHART._replace(missing=HOSTILE), CHART._replace(legend=[LegendEntry(HOSTILE, HOSTILE)], spec={"a": HOSTILE})]),
    Bars(HOSTILE, HOSTILE, [BarPart(HOSTILE, HOSTILE, 0, True)], [Bar(HOSTILE, 50.0, [(0, 50.0, HOSTILE)])]),
    Sheet([PICTURE]),
    Pairs([[PICTURE, PICTURE]], [[HOSTILE]]),
]


class Tags(HTMLParser):
    """Collects the tags of a page in order, and the texts of its scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.scripts, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)


def written(folder, sections, title="Title"):
    write_page(folder / "page.html", title, "Lead.", sections)
    return (folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"), [Section(HOSTILE, PARTS)], HOSTILE)


def test_the_hostile_page_has_every_part():
    assert {type(part) for part in PARTS} == set(parts.Part.__args__)


def test_every_text_is_escaped(hostile_page):
    harmless = json.dumps(PARTS, default=str).replace(json.dumps(HOSTILE)[1:-1], "harmless")
    assert "alert" not in harmless
    page = Tags(hostile_page)
    assert not page.open and sum("alert" in script for script in page.scripts) == 1  # the data of the third chart
    kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert kinds == ["application/json"] * 2 + [None, "module"]
    assert "\u2028" not in "".join(page.scripts[:2]) and hostile_page.count("<!--") == 0


def test_the_policy_allows_the_scripts_of_the_page_and_nothing_from_elsewhere(hostile_page, tmp_path):
    def policy(page):
        return next(a["content"] for tag, a in Tags(page).tags if a.get("http-equiv") == "Content-Security-Policy")

    digests = [hashlib.sha256(script.encode()).digest() for script in Tags(hostile_page).scripts[-2:]]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    assert f"default-src 'none'; script-src {hashes};" in policy(hostile_page)
    assert "eval" not in policy(hostile_page)
    plain = written(tmp_path, [Section("A", [Text("b")])])
    assert "script-src 'none'" in policy(plain) and "<script" not in plain and len(plain) < 20_000


def test_a_page_refers_to_nothing_outside(hostile_page):
    own = re.sub(r"<script>.*?</script>", "", hostile_page, flags=re.DOTALL)  # Vega names the namespaces of SVG
    assert not re.search(r"https?://|<link|@import|url\(|srcset|<iframe", own)


def test_a_page_with_charts_has_less_than_a_megabyte_beside_its_data(hostile_page):
    assert 500_000 < len(hostile_page) < 1_000_000


def test_a_name_that_a_template_lacks_is_an_error_and_costs_no_file(tmp_path):
    with pytest.raises(Exception, match="has no attribute"):
        written(tmp_path, [Section("A", [Sheet([("no", "picture")])])])
    assert not list(tmp_path.iterdir())


def test_a_page_is_written_into_a_folder_that_does_not_exist_yet(tmp_path):
    write_page(tmp_path / "a" / "b" / "page.html", "Title", "Lead.", [])
    assert "<h1>Title</h1>" in (tmp_path / "a" / "b" / "page.html").read_text()


def test_a_page_replaces_a_page_alone_also_one_of_an_older_version(tmp_path):
    written(tmp_path, [])
    refuse_other_file(tmp_path / "page.html")
    (tmp_path / "old.html").write_text(
        "<footer>Made by mixer_jax from the folders of its runs. This file loads nothing.</footer>"
    )
    refuse_other_file(tmp_path / "old.html")
    (tmp_path / "thesis.html").write_text("<p>mine</p>")
    with pytest.raises(UserError, match=r"thesis\.html exists, and no report made it: move it away"):
        refuse_other_file(tmp_path / "thesis.html")


def test_columns_of_numbers_are_right_aligned_and_the_first_never(tmp_path):
    page = written(
        tmp_path, [Section("A", [Table(["10", "note", "top-1"], [["10", "5 and more", "93.1 %"], ["20", "none", "\u2013"]])])]
    )
    assert re.findall(r"<td( class=\"num\")?>", page) == ["", "", ' class="num"'] * 2
    assert re.findall(r"<th( class=\"num\")?>", page) == ["", "", ' class="num"']


def test_the_parts_of_a_bar_have_the_styles_of_the_legend_and_their_widths(tmp_path):
    legend = [BarPart("a", "1 s", 0), BarPart("b", "3 s", 4, True)]
    bars = [Bar("first", 0.0, [(0, 25.0, "1 s")]), Bar("second", 25.0, [(1, 75.0, "3 s")])]
    page = written(tmp_path, [Section("A", [Bars("Time", "4 s", legend, bars)])])
    assert re.findall(r'<i( class="[\w ]+")? style="width:([\d.]+)%"', page) == [
        (' class="c0"', "25.000"), ("", "25.000"), (' class="c4 striped"', "75.000"),
    ]  # fmt: skip
    assert re.findall(r'<li><i class="([\w ]+)"></i>(\w) <b>(\d s)</b>', page) == [
        ("c0", "a", "1 s"), ("c4 striped", "b", "3 s"),
    ]  # fmt: skip


def test_exactly_the_chosen_row_is_emphasized(tmp_path):
    page = written(tmp_path, [Section("A", [Table(["a"], [["x"], ["y"], ["z"]], emphasized=1)])])
    assert re.findall(r'<tr( class="best")?><td>(.)', page) == [("", "x"), (' class="best"', "y"), ("", "z")]


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    check_installed()
    monkeypatch.setattr("mixer_jax.pages.page.EXTRA", ("jinja2", "no_such_library"))
    with pytest.raises(UserError, match=r"no_such_library: pip install 'mixer_jax\[report\]'"):
        check_installed()


def test_the_modules_of_pages_load_none_of_these_libraries_before_a_page_is_made():
    code = "import sys; import mixer_jax.pages.page, mixer_jax.pages.charts; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"jinja2", "altair", "vl_convert"} & set(modules)


@pytest.mark.parametrize(
    "file", [f for path in ("pages/*.py", "report/*.py", "**/*_page.py") for f in sorted((ROOT / "mixer_jax").glob(path))]
)
def test_there_is_no_markup_in_python(file):
    texts = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
    assert not [text for text in texts if isinstance(text, str) and re.search(r"</?[a-z!]|&[a-z]+;", text)]


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
    assert "<h1>a ? class</h1>" in written(tmp_path, [], "a \ud800 class")
