"""One HTML file and its plain parts: sections, paragraphs, tables. Every text that is given is escaped here.

Not here: what a page says about runs (sections.py), its look (style.py).
"""

import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mixer_jax.report.style import CSS
from mixer_jax.storage import write_whole

NUMBER = re.compile(r"([+\-\u2212\u00b1~]?\d.*|\u2013|)", re.DOTALL)  # also 93.1 %, 12 min, and an en dash for none


def write_page(file: Path, title: str, lead: str, sections: Sequence[str]) -> None:
    """Writes a page of finished `sections` under a title and one sentence that says what it found."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    page = (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(sections)
        + "\n<footer>Made by mixer_jax from the folders of its runs. This file loads nothing.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )
    with write_whole(file) as temporary:
        temporary.write_bytes(page.encode(errors="replace"))  # a name from a file may hold half a character


def section(title: str, *parts: str) -> str:
    """A heading and finished HTML parts."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Text, not HTML; `kind` is a class of style.py, such as "missing"."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    notes: Sequence[str] = (),
    emphasize: int | None = None,
) -> str:
    """Rows of text under a header; columns of numbers, except the first one, are right-aligned.

    Args:
      caption: a line above.
      notes: lines underneath.
      emphasize: the row, from 0, that is set in bold.
    """
    numeric = [i > 0 and all(NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(header))]

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="num">{escape(cell)}</{tag}>' if right else f"<{tag}>{escape(cell)}</{tag}>"
            for cell, right in zip(row, numeric, strict=True)
        )

    css_classes = ["best" if i == emphasize else "" for i in range(len(rows))]
    body = "".join(f'<tr class="{css_class}">{cells("td", row)}</tr>\n' for css_class, row in zip(css_classes, rows, strict=True))
    return (
        f'<div class="scroll"><table>{caption and f"<caption>{escape(caption)}</caption>"}\n'
        f"<thead><tr>{cells('th', header)}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
        + (f'<div class="notes">{"".join(map(paragraph, notes))}</div>' if notes else "")
    )


def number(value: float, digits: int = 4) -> str:
    """Whole numbers as they are, others to `digits` digits, with a true minus: 0.0005, 2e-5, 67.78, 93 835."""
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
