"""Which classes the images of a folder or archive have: from sub-folders, or from a file of labels.

Sub-folders: the rule of data/sources/class_tree.py. A file of labels (`prepare --labels`) is one that a public data set comes
with (label_files.py), or a table of images and classes (label_tables.py), in any order. A class is one of --classes or, if none
of these is named by a number, its number from 0; several classes make a set. The text of a .cls file (webdataset:) is a number,
several numbers, or names separated by commas or new lines.

Classes are numbered in the order of `--classes` (a text file with a name a line, or another split's manifest.json), otherwise
in the data set's own order, if its file of labels has one, or in the order of class_order.py: with WordNet ids that is the order
of the released weights. ILSVRC2012_IDs have another order.
"""

import json
import re
import sys
from collections import Counter

from mixer_jax.classes import MAX_CLASSES
from mixer_jax.data.sources.class_order import sort_classes
from mixer_jax.data.sources.class_tree import Advise, ImageTree, find_classes
from mixer_jax.errors import UserError, as_message
from mixer_jax.preparation.label_files import read_label_file, read_text
from mixer_jax.preparation.label_tables import is_number, split_numbers

Labels = list[tuple[int, ...]]
LabelsOfSplit = list[tuple[int, ...] | None]  # None: the image belongs to another split


def read_classes(file: str) -> tuple[str, ...]:
    """Return the names of `--classes`; empty when none is given."""
    if not file:
        return ()
    text = read_text(file)
    try:
        names = json.loads(text)["class_names"] if file.endswith(".json") else [line.strip() for line in text.splitlines()]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"--classes {file} is not a manifest.json ({error!r}), nor a .txt file with a name a line.") from error
    twice = [name for name, count in Counter(names).items() if count > 1 or not name]
    if twice or not names:
        raise UserError(
            f"--classes {file} must have a name a line, each once: mend {twice[0]!r}." if twice else f"{file} is empty."
        )
    return tuple(names)


def label_by_folder(
    tree: ImageTree, where: str, split: str, classes: tuple[str, ...], advise: Advise, *, tars: bool
) -> tuple[tuple[str, ...], LabelsOfSplit]:
    """Take the folder that an image lies in as its class, as find_classes does."""
    found = find_classes(tree, where, split, advise, tars=tars)
    unknown = next((name for name in found.names if classes and name not in classes), None)
    if unknown is not None:
        raise UserError(f"{where}: the folder {unknown!r} is not in --classes. Add it there, or remove the folder.")
    classes = classes or found.names
    label_of = {name: (label,) for label, name in enumerate(classes)}
    return classes, [None if name is None else label_of[name] for name in found.of_images]


def label_by_file(
    names: list[str], file: str, synsets: str, classes: tuple[str, ...], split: str
) -> tuple[tuple[str, ...], LabelsOfSplit]:
    """Take the classes of images from a file of labels, as above; None for an image that belongs to another split."""
    file_labels = read_label_file(file, names, synsets, split)
    keys = [name if name in file_labels.classes_of else name.rpartition("/")[2] for name in names]
    listed = [key for key in keys if key in file_labels.classes_of]
    if file_labels.whole and len(listed) < len(names):
        missing = next(name for name, key in zip(names, keys, strict=True) if key not in file_labels.classes_of)
        raise UserError(f"{file} has no line for {missing}: add one, or remove the image.")
    if len(set(listed)) != len(listed) or len(listed) != len(file_labels.classes_of):
        unused = next(iter(set(file_labels.classes_of) - set(listed)), None)
        which = (
            f"no image is named {unused}" if unused else "images of one name lie in several folders: name them with their folders"
        )
        raise UserError(f"{file} has {len(file_labels.classes_of)} lines for {len(listed)} images: {which}.")
    class_names, labels = resolve_labels(
        [file_labels.classes_of[key] for key in listed], classes or file_labels.class_names, file
    )
    print(as_message(_describe(file, file_labels.form, class_names, labels)), file=sys.stderr)
    label_of = dict(zip(listed, labels, strict=True))
    return class_names, [label_of.get(key) for key in keys]


def label_by_text(texts: list[str], where: str, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Labels]:
    """Take the classes of images from the texts of their .cls files."""
    known = set(classes)
    parts: dict[str, list[str]] = {}  # of each different text
    for text in texts:
        if text not in parts:
            whole = text.strip()
            by_name = [part for line in re.split(r"[,\n]", whole) if (part := line.strip())]
            parts[text] = [whole] if whole in known else split_numbers(whole) or by_name
    class_names, labels = resolve_labels([parts[text] for text in texts], classes, where)
    print(as_message(_describe(where, ".cls files", class_names, labels)), file=sys.stderr)
    return class_names, labels


def _describe(where: str, form: str, class_names: tuple[str, ...], labels: Labels) -> str:
    """Say in one line how labels were understood."""
    counts = [len(label) for label in labels]
    single = set(counts) == {1}
    without = f", {counts.count(0)} images without a class" if 0 in counts else ""
    kind = "single" if single else f"multi: sets of up to {max(counts)}{without}"
    return f"{where}: {form}; {len(class_names)} classes, {kind}"


def resolve_labels(cells: list[list[str]], classes: tuple[str, ...], where: str) -> tuple[tuple[str, ...], Labels]:
    """Return (class names, sorted labels of each image) for cells that are class names, or one or several numbers."""
    known = set(classes)
    words_of: dict[tuple[str, ...], list[str]] = {}  # of each different row
    for row in cells:
        if (key := tuple(row)) not in words_of:
            words_of[key] = [word for cell in row for word in ([cell] if cell in known else split_numbers(cell) or [cell])]
    words = {word for row in words_of.values() for word in row}
    classes = classes or _classes_of_words(words, where)
    number_of = {name: label for label, name in enumerate(classes)}
    # Where classes are named by numbers, a number is a name: of 1 to 102, 0 is none, and 1 is the first.
    of_value = {int(name): label for name, label in number_of.items() if is_number(name)} or dict(enumerate(range(len(classes))))
    for word in sorted(words - number_of.keys()):
        if not is_number(word) or int(word) not in of_value:
            some = ", ".join(classes[:3])
            raise UserError(
                f"{where} has the label {word!r}: it must be one of the {len(classes)} classes ({some}, ...), or a number below "
                "if none is named by a number. Mend one."
            )
        number_of[word] = of_value[int(word)]
    labels_of = {key: tuple(sorted({number_of[word] for word in row})) for key, row in words_of.items()}
    return classes, [labels_of[tuple(row)] for row in cells]


def _classes_of_words(words: set[str], where: str) -> tuple[str, ...]:
    """Return the classes of labels without --classes: all numbers up to the largest, or the names."""
    if not all(map(is_number, words)):
        return sort_classes(words)
    most = max(map(int, words), default=-1)
    if most >= MAX_CLASSES:
        raise UserError(f"{where} has the label {most}: without --classes numbers must be below {MAX_CLASSES}.")
    return tuple(str(label) for label in range(most + 1))
