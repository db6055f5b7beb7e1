"""Files of labels of our own form: a table of images and classes, as CSV, as TSV or separated by white space.

    a.jpg,golden retriever        CSV: commas, or semicolons; quotes as usual; one column for each class of an image
    a.jpg<TAB>golden retriever    TSV
    a.jpg cat dog                 white space: neither names of files nor of classes have spaces

The separator is the one by which most lines name an image. An image's name is with or without its folders, and with or without
its suffix where that is clear. A first line that names no image is a header. With a header of more than two columns, one must
have a name of CLASS_COLUMNS; without a header, images are in the first column, or there are two.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mixer_jax.data.sources.class_tree import is_image
from mixer_jax.errors import UserError

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "white space"}
OF_SUFFIX = {".csv": ",;\t", ".tsv": "\t", ".tab": "\t"}
CLASS_COLUMNS = {
    "class", "classes", "class_name", "classname", "class_id", "label", "labels", "label_name", "category", "target", "breed",
    "species",
}  # fmt: skip

Row = list[str]


class LabelTable(NamedTuple):
    """What a table of labels says."""

    rows: list[tuple[str, list[str]]]  # an image's name, with or without its folders, and the cells of its classes
    form: str  # how it was understood, in words


def is_number(word: str) -> bool:
    """Return whether a word is a class's number."""
    return word.isascii() and word.isdecimal() and len(word) < 10


def split_numbers(text: str) -> list[str]:
    """Return the numbers of which a text consists, separated by white space, commas or semicolons; nothing for another text."""
    words = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    return words if all(map(is_number, words)) else []


def read_table(text: str, file: str, names: list[str]) -> LabelTable:
    """Read the table `text` of `file` about the images `names`. Raises UserError for one that could mean several things."""
    known = {name: name for name in names} | {base: base for base in (name.rpartition("/")[2] for name in names)}
    separator, rows = _separate(text, file, known)
    if not _most_known(rows, known)[1]:
        known |= _without_suffixes(known)
        separator, rows = _separate(text, file, known)
    column = _most_known(rows, known)[0]
    header = rows[0] if _is_header(rows[0], rows[1:], column, known) else []
    rows = rows[1:] if header else rows
    columns = _class_columns(rows, header, column, file)
    of_classes = slice(1, None) if columns is None else slice(columns, columns + 1)
    table = []
    for row in rows:
        name = row[column] if column < len(row) else ""
        table.append((known.get(name, name), [cell for cell in row[of_classes] if cell]))
    if not any(cells for _, cells in table):
        raise UserError(f"{file} names images and none of their classes: write a line NAME,CLASS for each image.")
    if separator == " ":
        table = [(name, _classes_of_words(cells, file)) for name, cells in table]
    place = "after it" if columns is None else f"in column {columns + 1}"
    form = (
        f"separated by {SEPARATORS[separator]}, {'header ' + ', '.join(map(repr, header)) if header else 'no header'}, "
        f"images in column {column + 1}, classes {place}"
    )
    return LabelTable(table, form)


def _without_suffixes(names: Iterable[str]) -> dict[str, str]:
    """Return {a name without its suffix: the name} of those that differ in more."""
    stems = {name: os.path.splitext(name)[0] for name in names}
    counts = Counter(stems.values())
    return {stem: name for name, stem in stems.items() if counts[stem] == 1}


def _separate(text: str, file: str, known: dict[str, str]) -> tuple[str, list[Row]]:
    """Return the separator by which most lines name an image, the first of several, and the cells of all lines."""
    usual = OF_SUFFIX.get(Path(file).suffix.lower(), "\t,; ")
    best, found, error = (0, 0), ("", []), "it is empty"
    for separator in [mark for mark in usual if mark in text] or [" "]:
        try:
            rows = [row for row in _parse(text, separator) if not (row[0].startswith("#") and row[0] not in known)]
        except csv.Error as problem:
            error = str(problem)
            continue
        score = _most_known(rows, known)[1], sum(len(row) > 1 for row in rows)
        if rows and (score > best or not found[0]):
            best, found = score, (separator, rows)
    if not found[0]:
        raise UserError(f"{file} cannot be read as a table ({error}): write a line NAME,CLASS for each image.")
    return found


def _parse(text: str, separator: str) -> list[Row]:
    if separator == " ":
        return [row for line in text.splitlines() if (row := line.split())]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    return [row for cells in lines if any(row := [cell.strip() for cell in cells])]


def _most_known(rows: list[Row], known: dict[str, str]) -> tuple[int, int]:
    """Return the column that names most images, the first of several, and how many."""
    hits = Counter(column for row in rows for column, cell in enumerate(row) if cell in known)
    column = max(sorted(hits), key=hits.get, default=0)
    return column, hits[column]


def _is_header(first: Row, others: list[Row], column: int, known: dict[str, str]) -> bool:
    """Return whether the first line names no image, as others do, and nothing that stands in their columns."""
    name = first[column] if column < len(first) else ""
    names_images = any(row[column] in known for row in others if column < len(row))
    repeated = any(cell and row[number] == cell for row in others for number, cell in enumerate(first[: len(row)]))
    return names_images and name not in known and not is_image(name) and not repeated


def _class_columns(rows: list[Row], header: Row, column: int, file: str) -> int | None:
    """Return the one column that has the classes; None if all after the first have."""
    width = max(map(len, [header, *rows]))
    if width <= 2:
        return 1 - column
    if len(header) == 2 and column == 0:
        return None
    if header and width > len(header):
        which = f"{width} columns, and {len(header)} of them in its header"
    elif header:
        named = [number for number, name in enumerate(header) if name.lower() in CLASS_COLUMNS]
        if len(named) == 1 and named[0] != column:
            return named[0]
        which = f"the columns {', '.join(map(repr, header))}"
    elif column:
        which = f"{width} columns, images in column {column + 1} and no header"
    else:
        types = {_is_numeric(rows, number) for number in range(1, width)} if len(set(map(len, rows))) == 1 else {True}
        if len(types) == 1:
            return None
        which = "columns of numbers beside columns of names"
    raise UserError(
        f"{file} has {which}: which of them are classes? Keep two columns, the image and its class; or, without a header, the "
        "image and a column for each of its classes."
    )


def _is_numeric(rows: list[Row], column: int) -> bool:
    try:
        return all(float(row[column] or 0) is not None for row in rows)
    except ValueError:
        return False


def _classes_of_words(words: list[str], file: str) -> list[str]:
    numbers = split_numbers(" ".join(words))
    if numbers or not any("," in word for word in words):
        return numbers or words
    raise UserError(
        f"{file} separates classes by white space and has {' '.join(words)!r}: is the comma part of a name? Write NAME,CLASS "
        'lines, with names that hold a comma in quotes: a.jpg,"cat, black"'
    )
