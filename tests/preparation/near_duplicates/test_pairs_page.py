"""The page of dropped images shows them beside the images that they are copies of."""

import re

import pytest
from preparation import miniature
from preparation.near_duplicates.test_references import COPIES, ORIGINALS, folder, train
from preparation.preparing import make

from mixer_jax.errors import UserError
from mixer_jax.preparation.near_duplicates import pairs_page

HOSTILE = "<img src=x onerror=alert(1)>.jpg"


def pairs_of(page: str) -> list[list[str]]:
    """Return the lines of each pair's caption."""
    assert all(figure.count("<img") == 2 for figure in re.findall(r"<figure>.*?</figure>", page, re.DOTALL))
    return [caption.split("<br>") for caption in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    options = {"drop_near_duplicates_of": (folder(root),)}
    make(train(root), root / "to", **options)
    return root, options


def test_each_copy_is_shown_beside_its_original_and_the_nearest_come_first(prepared):
    root, options = prepared
    pairs = pairs_of((root / "to/train/duplicates.html").read_text())
    source = options["drop_near_duplicates_of"][0]
    originals = {name.split("/")[-1]: original for _, name, original in pairs}
    assert originals == {name: f"copy of {ORIGINALS[name]} ({source})" for name in COPIES}
    distances = [float(text.removeprefix("distance ")) for text, _, _ in pairs]
    assert distances == sorted(distances) and distances[-1] > 0


def test_a_page_that_was_removed_is_made_again_by_the_same_command(prepared):
    root, options = prepared
    page = root / "to/train/duplicates.html"
    content = page.read_bytes()
    page.unlink()
    make(f"folder:{root / 'train'}", root / "to", **options)
    assert page.read_bytes() == content


def test_without_the_libraries_the_split_is_made_and_a_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    def refuse():
        raise UserError("A page needs jinja2: pip install 'mixer_jax[report]'")

    monkeypatch.setattr(pairs_page, "check_installed", refuse)
    assert make(train(tmp_path), tmp_path / "to", drop_near_duplicates_of=(folder(tmp_path),))
    assert "duplicates.html is not written: A page needs jinja2: pip install" in capsys.readouterr().out


def test_of_many_copies_the_nearest_and_the_last_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_page, "MAX_NEAR", 2)
    make(train(tmp_path), tmp_path / "to", drop_near_duplicates_of=(folder(tmp_path),))
    page = (tmp_path / "to/train/duplicates.html").read_text()
    assert page.count("1 of 6 are shown.") == 2 and len(pairs_of(page)) == 4


def test_copies_within_the_split_are_shown_and_names_are_escaped(tmp_path):
    images = {f"a/{name}": data for name, data in list(COPIES.items())[:3]} | {f"b/{HOSTILE}": COPIES["exact.jpg"]}
    source = f"folder:{miniature.make_tree(tmp_path / 'train', images)}"
    make(source, tmp_path / "to", drop_near_duplicates_within=True, allow_empty_classes=True)
    page = (tmp_path / "to/train/duplicates.html").read_text()
    assert pairs_of(page)[0][1:] == ["b/&lt;img src=x onerror=alert(1)&gt;.jpg", "copy of a/exact.jpg"]
