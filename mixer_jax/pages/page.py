"""Writes a page: fills the templates with its sections. parts.py says what a section may have.

The page carries its styles and, if it has charts, the JavaScript that draws them. Its Content-Security-Policy lets the browser
run exactly these scripts and load nothing.
"""

import base64
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mixer_jax.errors import UserError
from mixer_jax.pages.parts import Charts, Folded, Part, Section
from mixer_jax.storage import read_bytes, write_whole

EXTRA = ("jinja2", "altair", "vl_convert")
MADE_BY = "Made by mixer_jax"  # The footer of every page begins with it.
MAX_PAGE_BYTES = 2**30


def check_installed() -> None:
    """Raise UserError if the libraries that make pages are not installed. They are the extra `report`."""
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        raise UserError(f"A page needs {', '.join(missing)}: pip install 'mixer_jax[report]'")


def refuse_other_file(file: Path) -> None:
    """Raise UserError if a file exists and is not a page that `write_page` wrote."""
    if file.exists() and MADE_BY not in read_bytes(file, MAX_PAGE_BYTES).decode(errors="replace"):
        raise UserError(f"{file} exists, and no report made it: move it away, or write the page elsewhere.")


def write_page(file: Path, title: str, lead: str, sections: Sequence[Section], source: str = "the folders of its runs") -> None:
    """Write an HTML page.

    Args:
      file: the path of the page. Its folder is made if it does not exist.
      title: the heading of the page.
      lead: one sentence under the heading that says what the page shows.
      sections: the sections.
      source: what the page was made from, for its last line.
    """
    file = Path(file)
    refuse_other_file(file)
    environment = _environment()
    scripts = _scripts() if any(_has_charts(section.parts) for section in sections) else ()
    page = environment.get_template("page.html").render(
        title=title, lead=lead, sections=sections, made_by=MADE_BY, source=source, scripts=scripts, policy=_policy(scripts)
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(file) as temporary:
        temporary.write_bytes(page.encode(errors="replace"))  # A name from a file may contain a lone surrogate.


@functools.cache
def _environment() -> Any:
    """Return the Jinja environment, which escapes every value and refuses a name that is not defined."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mixer_jax.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["macro_name"] = lambda part: type(part).__name__.lower()
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


@functools.cache
def _scripts() -> tuple[str, ...]:
    """Return the scripts of a page with charts: Vega with what it needs, and charts.js. Nothing in them comes from data."""
    import vl_convert

    environment = _environment()
    return vl_convert.javascript_bundle(), environment.loader.get_source(environment, "charts.js")[0]


def _policy(scripts: Iterable[str]) -> str:
    """Return the Content-Security-Policy of a page with these scripts."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    others = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {others}"


def _has_charts(parts: Sequence[Part]) -> bool:
    return any(isinstance(part, Charts) or (isinstance(part, Folded) and _has_charts(part.parts)) for part in parts)
