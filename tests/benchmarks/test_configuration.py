"""docs/configuration.md is generated from the table of options."""

from benchmarks.configuration import PAGE, page
from mixer_jax.options import EVALUATORS, OPTIONS


def test_the_page_of_options_is_what_the_table_gives():
    assert PAGE.read_text() == page(), "run python -m benchmarks.configuration"


def test_every_option_has_a_line_with_as_many_cells_as_the_head():
    lines = [line for line in page().splitlines() if line.startswith("| `")]
    names = [line.split("`")[1] for line in lines]
    for option in [*OPTIONS, *(row for rows in EVALUATORS.values() for row in rows)]:
        assert option.name in names
    assert {line.count(" | ") for line in lines} == {
        3,
        1,
    }  # The tables of options have four columns, the table of renamed options two.
