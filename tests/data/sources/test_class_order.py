"""Classes named by whole numbers are in the order of numbers, all others in that of text."""

import pytest

from mixer_jax.data.sources.class_order import sort_classes
from mixer_jax.data.sources.folder import FolderSource


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "9", "0", "100", "9"], ("0", "9", "10", "100")),
        (["1", "-1", "0", "-10"], ("-10", "-1", "0", "1")),
        (["02", "010", "1"], ("1", "02", "010")),
        (["01", "1", "001"], ("001", "01", "1")),
        (["10", "9", "other"], ("10", "9", "other")),
        (["10", "9", ""], ("", "10", "9")),
        (["1.5", "10", "2"], ("1.5", "10", "2")),
        (["n02", "n01"], ("n01", "n02")),
        (["²", "10", "9"], ("10", "9", "²")),
        (["1" * 5000, "2"], ("1" * 5000, "2")),
        ([], ()),
    ],
)
def test_whole_numbers_are_ordered_as_numbers(names, order):
    assert sort_classes(names) == order


def test_a_folder_whose_order_changed_says_so_in_its_identity(tmp_path):
    """So that a run that older versions began on it is refused in words that can be understood."""

    def source(classes: int) -> FolderSource:
        for number in range(classes):
            (tmp_path / str(number)).mkdir(exist_ok=True)
            (tmp_path / f"{number}/{number}.jpg").write_bytes(b"x")
        return FolderSource(str(tmp_path), "")

    assert source(10).identity() == "c2dd80851b293ed6"
    assert source(11).class_names == tuple(map(str, range(11)))
    assert source(11).locate(10).endswith("10/10.jpg") and source(11).labels(10) == (10,)
    assert source(11).identity().endswith(" with classes in the order of numbers")
