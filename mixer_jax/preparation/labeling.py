"""The classes of the images of a folder or archive. They come from sub-folders, from a file of labels or from .cls files.

data/sources/class_tree.py has the rule for sub-folders. A file of labels (`prepare --labels`) is a file of a public data set
(label_files.py) or a table of images and classes in any order (label_tables.py). It gives a class by its name. If no class is
itself named by a number, it may also give the number of a class, which begins at 0. An image can have several classes. The text
of a .cls file (webdataset:) is a number, several numbers, or names separated by commas or new lines.

Classes are numbered in the order of `--classes` (a text file with a name a line, or another split's manifest.json). Without it,
they are numbered in the data set's own order, if its file of labels has one, and otherwise in the order of class_order.py. For
WordNet ids, the latter is the order of the released weights. ILSVRC2012_IDs have another order.
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
"""The sorted labels of each image."""

LabelsOfSplit = list[tuple[int, ...] | None]
"""The sorted labels of each image, or None for an image that belongs to another split."""


def read_classes(file: str) -> tuple[str, ...]:
    """Return the names of the classes in the file of `--classes`, or none if `file` is empty. Raises UserError."""
    if not file:
        return ()
    text = read_text(file)
    try:
        names = json.loads(text)["class_names"] if file.endswith(".json") else [line.strip() for line in text.splitlines()]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"--classes {file} is not a manifest.json ({error!r}), nor a .txt file with a name a line.") from error
    wrong = [name for name, count in Counter(names).items() if count > 1 or not name]
    if wrong or not names:
        raise UserError(
            f"--classes {file} must have a name a line, each once: mend {wrong[0]!r}." if wrong else f"{file} is empty."
        )
    return tuple(names)


def label_by_folder(
    tree: ImageTree, where: str, split: str, classes: tuple[str, ...], advise: Advise, *, tars: bool
) -> tuple[tuple[str, ...], LabelsOfSplit]:
    """Return the class names and the labels of images whose classes are the folders that they lie in.

    Args:
        tree: The paths of images and folders.
        where: What messages call the source.
        split: The split to label. Images of other splits have no labels.
        classes: The names of --classes, which must contain all folders; empty if it was not given.
        advise: Says what the user can type if there are several possible folders.
        tars: Whether each class comes from a tar of its own.

    Raises:
        UserError: The tree could mean several things, or has a class that is not in `classes`.
    """
    folders = find_classes(tree, where, split, advise, tars=tars)
    unknown = next((name for name in folders.names if classes and name not in classes), None)
    if unknown is not None:
        raise UserError(f"{where}: the folder {unknown!r} is not in --classes. Add it there, or remove the folder.")
    classes = classes or folders.names
    label_of = {name: (label,) for label, name in enumerate(classes)}
    return classes, [None if name is None else label_of[name] for name in folders.of_images]


def label_by_file(
    names: list[str], file: str, synsets: str, classes: tuple[str, ...], split: str
) -> tuple[tuple[str, ...], LabelsOfSplit]:
    """Return the class names and the labels of images whose classes are in a file of labels, and describe them to the user.

    Args:
        names: The paths of the images in their folder or archive.
        file: The path of the file of labels.
        synsets: The path of ImageNet's meta.mat, for a file with its numbers.
        classes: The names of --classes; empty if it was not given.
        split: The split to label. Images of other splits have no labels.

    Raises:
        UserError: The file and the images do not fit each other, or the file has an unknown class.
    """
    file_labels = read_label_file(file, names, synsets, split)
    keys = [name if name in file_labels.classes_of else name.rpartition("/")[2] for name in names]
    listed = [key for key in keys if key in file_labels.classes_of]
    if file_labels.covers_all_images and len(listed) < len(names):
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
    print(as_message(_describe(file, file_labels.description, class_names, labels)), file=sys.stderr)
    label_of = dict(zip(listed, labels, strict=True))
    return class_names, [label_of.get(key) for key in keys]


def label_by_text(texts: list[str], where: str, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Labels]:
    """Return the class names and the labels of images from the texts of their .cls files, and describe them to the user."""
    known = set(classes)
    words_of: dict[str, list[str]] = {}  # {text: the classes that it names}
    for text in texts:
        if text not in words_of:
            whole = text.strip()
            by_name = [part for line in re.split(r"[,\n]", whole) if (part := line.strip())]
            words_of[text] = [whole] if whole in known else split_numbers(whole) or by_name
    class_names, labels = resolve_labels([words_of[text] for text in texts], classes, where)
    print(as_message(_describe(where, ".cls files", class_names, labels)), file=sys.stderr)
    return class_names, labels


def _describe(where: str, description: str, class_names: tuple[str, ...], labels: Labels) -> str:
    """Return one line for the user that says how labels were understood."""
    counts = [len(label) for label in labels]
    single = set(counts) == {1}
    without = f", {counts.count(0)} images without a class" if 0 in counts else ""
    kind = "single" if single else f"multi: sets of up to {max(counts)}{without}"
    return f"{where}: {description}; {len(class_names)} classes, {kind}"


def resolve_labels(cells: list[list[str]], classes: tuple[str, ...], where: str) -> tuple[tuple[str, ...], Labels]:
    """Return the class names and the sorted labels of each image.

    Args:
        cells: The cells of each image. A cell is the name of a class, a number, or several numbers.
        classes: The class names; if it is empty, they are found in the cells.
        where: What messages call the source.

    Raises:
        UserError: A cell is neither the name nor the number of a class.
    """
    known = set(classes)
    words_of: dict[tuple[str, ...], list[str]] = {}  # {row: the names or single numbers in it}
    for row in cells:
        if (key := tuple(row)) not in words_of:
            words_of[key] = [word for cell in row for word in ([cell] if cell in known else split_numbers(cell) or [cell])]
    words = {word for row in words_of.values() for word in row}
    classes = classes or _classes_of_words(words, where)
    label_of = {name: label for label, name in enumerate(classes)}
    # If classes are named by numbers, a number in a cell is a name. With classes named 1 to 102, 0 is no class and 1 the first.
    label_of_number = {int(name): label for name, label in label_of.items() if is_number(name)}
    label_of_number = label_of_number or {label: label for label in range(len(classes))}
    for word in sorted(words - label_of.keys()):
        if not is_number(word) or int(word) not in label_of_number:
            some = ", ".join(classes[:3])
            raise UserError(
                f"{where} has the label {word!r}: it must be one of the {len(classes)} classes ({some}, ...), or a number below "
                "if none is named by a number. Mend one."
            )
        label_of[word] = label_of_number[int(word)]
    labels_of = {key: tuple(sorted({label_of[word] for word in row})) for key, row in words_of.items()}
    return classes, [labels_of[tuple(row)] for row in cells]


def _classes_of_words(words: set[str], where: str) -> tuple[str, ...]:
    """Return the class names if --classes was not given: all numbers up to the largest, or the sorted words."""
    if not all(map(is_number, words)):
        return sort_classes(words)
    largest = max(map(int, words), default=-1)
    if largest >= MAX_CLASSES:
        raise UserError(f"{where} has the label {largest}: without --classes numbers must be below {MAX_CLASSES}.")
    return tuple(str(label) for label in range(largest + 1))
