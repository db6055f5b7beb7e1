"""Which classes the images of a folder or archive have: from sub-folders, or from a file of labels.

A file of labels (`prepare --labels`) is one that a public data set comes with (label_files.py), or has a line for each image

    NAME CLASS [CLASS ...]

in any order; NAME is the image's, with or without its folders; a class is one of --classes, or its number from 0; several classes
make a set.

Classes are numbered in the order of `--classes` (a text file with a name a line, or another split's manifest.json), otherwise
in the data set's own order, if its file of labels has one, or in the order of their names: with WordNet ids that is the order of
the released weights. ILSVRC2012_IDs have another order.
"""

import json
from collections import Counter

from mixer_jax.errors import UserError
from mixer_jax.preparation.label_files import is_number, read_label_file, read_text

Labels = list[tuple[int, ...]]
MAX_CLASSES = 1_000_000  # JFT-3B has 30 000


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


def label_by_folder(names: list[str], classes: tuple[str, ...]) -> tuple[tuple[str, ...], Labels]:
    """Take the folder that an image lies in as its class."""
    folders = []
    for name in names:
        parent, _, _ = name.rpartition("/")
        if not parent:
            raise UserError(f"{name} lies in no folder, and folders are classes. Give the classes with --labels FILE.")
        folders.append(parent.rpartition("/")[2])
    classes = classes or tuple(sorted(set(folders)))
    label_of = {name: (label,) for label, name in enumerate(classes)}
    for folder, name in zip(folders, names, strict=True):
        if folder not in label_of:
            raise UserError(f"{name}: {folder!r} is not in --classes. Add it there, or remove the folder.")
    return classes, [label_of[folder] for folder in folders]


def label_by_file(
    names: list[str], file: str, synsets: str, classes: tuple[str, ...], split: str
) -> tuple[tuple[str, ...], list[tuple[int, ...] | None]]:
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
    label_of = dict(zip(listed, labels, strict=True))
    return class_names, [label_of.get(key) for key in keys]


def resolve_labels(words: list[list[str]], classes: tuple[str, ...], where: str) -> tuple[tuple[str, ...], Labels]:
    """Return (class names, sorted labels of each image) for words that are class names or numbers."""
    if not classes:
        seen = {word for row in words for word in row}
        if all(map(is_number, seen)):
            most = max(map(int, seen), default=-1)
            if most >= MAX_CLASSES:
                raise UserError(f"{where} has the label {most}: without --classes numbers must be below {MAX_CLASSES}.")
            classes = tuple(str(label) for label in range(most + 1))
        else:
            classes = tuple(sorted(seen))
    number_of = {name: label for label, name in enumerate(classes)}
    shared: dict[tuple[str, ...], tuple[int, ...]] = {}  # one tuple for all images of the same labels
    for row in words:
        key = tuple(row)
        if key not in shared:
            shared[key] = tuple(sorted({_label(word, number_of, where) for word in row}))
    return classes, [shared[tuple(row)] for row in words]


def _label(word: str, number_of: dict[str, int], where: str) -> int:
    if word in number_of:
        return number_of[word]
    if is_number(word) and int(word) < len(number_of):
        return int(word)
    raise UserError(
        f"{where} has the label {word!r}: it must be one of the {len(number_of)} classes or a number below. Mend one."
    )
