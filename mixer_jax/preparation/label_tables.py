"""Tables of images and their classes, which users write for their own images: CSV, TSV, or words separated by white space.

    a.jpg,golden retriever        CSV: commas or semicolons, quotes as usual, one column for each class of an image
    a.jpg<TAB>golden retriever    TSV
    a.jpg cat dog                 white space: names of files and of classes contain no spaces

The separator is the one with which the most lines name an image. A name of an image may lack its folders, and it may lack its
suffix if it is still unique. A first line that names no image is a header. In a header of more than two columns, exactly the
column of the classes must have a name in CLASS_COLUMNS. If a table without a header has more than two columns, the images must be
in the first of them.
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
SEPARATORS_OF_SUFFIX = {".csv": ",;\t", ".tsv": "\t", ".tab": "\t"}
CLASS_COLUMNS = {
    "class", "classes", "class_name", "classname", "class_id", "label", "labels", "label_name", "category", "target", "breed",
    "species",
}  # fmt: skip

Row = list[str]
"""The cells of a line."""


class LabelTable(NamedTuple):
    """The content of a table of labels."""

    rows: list[tuple[str, list[str]]]  # (name of an image, with or without its folders; cells of its classes)
    description: str  # how the table was understood, for the user


def is_number(word: str) -> bool:
    """Return whether a word is the number of a class: ASCII digits, fewer than ten."""
    return word.isascii() and word.isdecimal() and len(word) < 10


def split_numbers(text: str) -> list[str]:
    """Return the numbers in a text that has only numbers between white space, commas and semicolons; otherwise an empty list."""
    words = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    return words if all(map(is_number, words)) else []


def read_table(text: str, file: str, names: list[str]) -> LabelTable:
    """Return the table that a file contains. Raises UserError if it could mean several things.

    Args:
        text: The content of the file.
        file: The name of the file, whose suffix limits the separators.
        names: The paths of the images in their folder or archive.
    """
    # {what a cell may call an image: the name with which the table's rows are returned}
    known = {name: name for name in names} | {base: base for base in (name.rpartition("/")[2] for name in names)}
    separator, rows = _separate(text, file, known)
    if not _most_known(rows, known)[1]:
        known |= _without_suffixes(known)
        separator, rows = _separate(text, file, known)
    column = _most_known(rows, known)[0]
    header = rows[0] if _is_header(rows[0], rows[1:], column, known) else []
    rows = rows[1:] if header else rows
    class_column = _class_column(rows, header, column, file)
    class_cells = slice(1, None) if class_column is None else slice(class_column, class_column + 1)
    table = []
    for row in rows:
        name = row[column] if column < len(row) else ""
        table.append((known.get(name, name), [cell for cell in row[class_cells] if cell]))
    if not any(cells for _, cells in table):
        raise UserError(f"{file} names images and none of their classes: write a line NAME,CLASS for each image.")
    if separator == " ":
        table = [(name, _classes_of_words(cells, file)) for name, cells in table]
    class_position = "after it" if class_column is None else f"in column {class_column + 1}"
    description = (
        f"separated by {SEPARATORS[separator]}, {'header ' + ', '.join(map(repr, header)) if header else 'no header'}, "
        f"images in column {column + 1}, classes {class_position}"
    )
    return LabelTable(table, description)


def _without_suffixes(names: Iterable[str]) -> dict[str, str]:
    """Return {name without its suffix: name} of the names that remain unique without their suffix."""
    stems = {name: os.path.splitext(name)[0] for name in names}
    counts = Counter(stems.values())
    return {stem: name for name, stem in stems.items() if counts[stem] == 1}


def _separate(text: str, file: str, known: dict[str, str]) -> tuple[str, list[Row]]:
    """Return the separator with which the most lines name an image, and the rows that it makes.

    If several do equally well, it is the one with which more lines have several cells, then the first of them. Comments are left
    out: lines that begin with # and do not name an image.
    """
    allowed = SEPARATORS_OF_SUFFIX.get(Path(file).suffix.lower(), "\t,; ")
    best_score, separated, error = (0, 0), ("", []), "it is empty"
    for separator in [mark for mark in allowed if mark in text] or [" "]:
        try:
            rows = [row for row in _parse(text, separator) if not (row[0].startswith("#") and row[0] not in known)]
        except csv.Error as problem:
            error = str(problem)
            continue
        score = _most_known(rows, known)[1], sum(len(row) > 1 for row in rows)
        if rows and (score > best_score or not separated[0]):
            best_score, separated = score, (separator, rows)
    if not separated[0]:
        raise UserError(f"{file} cannot be read as a table ({error}): write a line NAME,CLASS for each image.")
    return separated


def _parse(text: str, separator: str) -> list[Row]:
    if separator == " ":
        return [row for line in text.splitlines() if (row := line.split())]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    return [row for cells in lines if any(row := [cell.strip() for cell in cells])]


def _most_known(rows: list[Row], known: dict[str, str]) -> tuple[int, int]:
    """Return the column in which the most cells name an image, and their number. The first of several such columns is taken."""
    hits = Counter(column for row in rows for column, cell in enumerate(row) if cell in known)
    column = max(sorted(hits), key=hits.get, default=0)
    return column, hits[column]


def _is_header(first: Row, others: list[Row], column: int, known: dict[str, str]) -> bool:
    """Return whether the first line is a header.

    It is one if it names no image although other lines do, and if none of its cells occurs again in the same column.
    """
    name = first[column] if column < len(first) else ""
    names_images = any(row[column] in known for row in others if column < len(row))
    repeated = any(cell and row[number] == cell for row in others for number, cell in enumerate(first[: len(row)]))
    return names_images and name not in known and not is_image(name) and not repeated


def _class_column(rows: list[Row], header: Row, column: int, file: str) -> int | None:
    """Return the column of the classes, or None if all columns after the first have classes. Raises UserError if unclear."""
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
