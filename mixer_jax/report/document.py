"""An HTML page and its plain parts: sections, paragraphs and tables. Every text is escaped here.

sections.py writes what a page says about runs, and style.py says how it looks.
"""

import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.report.style import CSS
from mixer_jax.storage import read_bytes, write_whole

# The cells of a column of numbers: also 93.1 %, 12 min, an empty cell, and an en dash for a missing value.
NUMBER = re.compile(r"([+\-\u2212\u00b1~]?\d.*|\u2013|)", re.DOTALL)

MADE_BY = "<footer>Made by mixer_jax"
MAX_PAGE_BYTES = 2**30


def refuse_other_file(file: Path) -> None:
    """Raise UserError if a file exists and is not a page that `write_page` wrote."""
    if file.exists() and MADE_BY not in read_bytes(file, MAX_PAGE_BYTES).decode(errors="replace"):
        raise UserError(f"{file} exists, and no report made it: choose another --out, or remove it.")


def write_page(file: Path, title: str, lead: str, sections: Sequence[str]) -> None:
    """Write an HTML page.

    Args:
      file: the path of the page. Its folder is made if it does not exist.
      title: the heading of the page.
      lead: one sentence under the heading that says what the page shows.
      sections: the sections, as HTML.
    """
    file = Path(file)
    refuse_other_file(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    page = (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(sections)
        + f"\n{MADE_BY} from the folders of its runs. This file loads nothing.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )
    with write_whole(file) as temporary:
        temporary.write_bytes(page.encode(errors="replace"))  # A name from a file may contain a lone surrogate.


def section(title: str, *parts: str) -> str:
    """Return a section: a heading and parts that are HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text; `kind` is a CSS class of style.py, such as "missing"."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    notes: Sequence[str] = (),
    emphasize: int | None = None,
) -> str:
    """Return a table. Columns of numbers are right-aligned, except the first column.

    Args:
      header: the text of each column's header.
      rows: the text of each cell, row by row.
      caption: a line above the table.
      notes: lines below the table.
      emphasize: the index of the row that is set in bold.
    """
    is_numeric = [i > 0 and all(NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(header))]

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="num">{escape(cell)}</{tag}>' if align_right else f"<{tag}>{escape(cell)}</{tag}>"
            for cell, align_right in zip(row, is_numeric, strict=True)
        )

    css_classes = ["best" if i == emphasize else "" for i in range(len(rows))]
    body = "".join(f'<tr class="{css_class}">{cells("td", row)}</tr>\n' for css_class, row in zip(css_classes, rows, strict=True))
    return (
        f'<div class="scroll"><table>{caption and f"<caption>{escape(caption)}</caption>"}\n'
        f"<thead><tr>{cells('th', header)}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
        + (f'<div class="notes">{"".join(map(paragraph, notes))}</div>' if notes else "")
    )


def number(value: float, digits: int = 4) -> str:
    """Return a number as text: a whole number as it is, another one rounded to `digits` digits.

    Examples are 0.0005, 2e-5, 67.78 and 93 835. The minus is U+2212, and a narrow space separates thousands.
    """
    if not math.isfinite(value):
        return "not finite"
    if value == round(value) and abs(value) < 1e9:
        text = f"{value:,.0f}"
    else:
        value = float(f"{value:.{digits}g}")
        text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"
    for written, shown in ((",", "\u202f"), ("e-0", "e-"), ("e+0", "e"), ("e+", "e"), ("-", "\u2212")):
        text = text.replace(written, shown)
    return text
