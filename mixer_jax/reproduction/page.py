"""Writes the page of an exhibit: its pictures if weights are given, and its table with what stands in the cells."""

import collections
from collections.abc import Sequence
from pathlib import Path

from mixer_jax.pages.page import refuse_other_file, write_page
from mixer_jax.pages.parts import Folded, Part, Section, Table, Text, number
from mixer_jax.reproduction.charts import charts_of
from mixer_jax.reproduction.drawings import drawing_sections
from mixer_jax.reproduction.exhibit import SOURCES
from mixer_jax.reproduction.show import cost_note, table_lines
from mixer_jax.reproduction.status import STATUSES


def write_exhibit(figures: dict, out: Path, weights: Sequence[str] = (), blocks: Sequence[int] | None = None) -> Path:
    """Write a page about an exhibit and return its path.

    Args:
      figures: what `show.figures_of` returned.
      out: the file of the page. An existing page is replaced, but no other file.
      weights: the weights that Figures 5 to 7 are drawn from.
      blocks: the numbers of the token-mixing MLPs that are drawn. None: those that the paper shows.

    Raises:
      UserError: `out` is a file that is no page, or the exhibit cannot be drawn from these weights.
    """
    refuse_other_file(out)
    drawings = drawing_sections(figures["exhibit"], weights, blocks) if weights else []
    notes: dict[str, int] = {}
    tables = [_section(figures["exhibit"], part, notes) for part in figures["parts"]]
    counts = collections.Counter(cell["status"] for cell in _cells(figures))
    lead = f"Its {number(sum(counts.values()))} cells by status: {', '.join(f'{status} {n}' for status, n in counts.items())}."
    title = f"{_name(figures)} of MLP-Mixer (arXiv 2105.01601)"
    write_page(out, title, lead, [*drawings, *tables, _meanings(figures, notes)], "the paper\u2019s figures and our runs")
    return out


def _name(figures: dict) -> str:
    """Return the name of an exhibit, such as "Table 3", from its word."""
    name = figures["exhibit"]
    return f"{name[:-1].capitalize()} {name[-1]}" if name[-1].isdigit() else name.capitalize()


def _cells(figures: dict) -> list[dict]:
    return [cell for part in figures["parts"] for row in part["rows"] for cell in row["cells"]]


def _section(exhibit: str, part: dict, notes: dict[str, int]) -> Section:
    """Return the section of a part of an exhibit: its charts, the paper's notes, the table, and the runs behind our figures."""
    head, *lines = table_lines(part, notes)
    rows = [["\u2013" if text is None else str(text) for text in line] for line in lines]
    if "status" in head:  # The words of a status stay on one line.
        place = head.index("status")
        rows = [[*row[:place], row[place].replace(" ", "\u00a0"), *row[place + 1 :]] if len(row) > 1 else row for row in rows]
    parts: list[Part] = [*charts_of(exhibit, part), *map(Text, part["notes"]), Table(list(head), rows)]
    return Section(part["title"], [*parts, *_runs(part)])


def _runs(part: dict) -> list[Part]:
    """Return, for each row, the runs behind our figures, which the reader unfolds."""
    folded = []
    for row in part["rows"]:
        lines = [
            (cell["column"], run["run"], f"{run['top1']:.2f}", run["git_commit"] or "\u2013", run["params_sha256"] or "\u2013")
            for cell in row["cells"]
            for run in cell["runs"]
        ]
        if lines:
            count = len({line[1] for line in lines})
            table = Table(("column", "run", "top-1, %", "commit", "SHA-256 of the parameters"), lines)
            folded.append(Folded(f"{row['group']}: {row['label']}", f"{number(count)} run{'s' * (count != 1)} of ours", [table]))
    return [Text("The runs behind our figures:"), *folded] if folded else []


def _meanings(figures: dict, notes: dict[str, int]) -> Section:
    """Return the section that explains statuses, sources and the numbers of notes."""
    cells = _cells(figures)
    statuses = [(status, STATUSES[status]) for status in dict.fromkeys(cell["status"] for cell in cells)]
    sources = [(source, SOURCES[source]) for source in dict.fromkeys(cell["source"] for cell in cells)]
    parts: list[Part] = [Table(("status", "meaning"), statuses), Table(("source of the paper\u2019s figure", "meaning"), sources)]
    if notes:
        parts.append(Table(("", "note"), [(str(index), note) for note, index in notes.items()]))
    if cost := cost_note(figures):
        parts.append(Text(cost))
    return Section("What the words and the notes mean", parts)
