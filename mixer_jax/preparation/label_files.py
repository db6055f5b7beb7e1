"""Reads the classes of images from the label files of public data sets. label_tables.py reads tables of users' own images.

    ImageNet        ILSVRC2012_devkit_t12.tar.gz, or its two files ILSVRC2012_validation_ground_truth.txt and, as --synsets,
                    meta.mat (or a text file whose line i is the WordNet id of ILSVRC2012_ID i)
    at Kaggle       LOC_val_solution.csv (all objects of an image are of the image's class)
    ReaL            real.json (arXiv 2006.07159), which has a set of classes for each image; some sets are empty
    Pets            annotations/trainval.txt, annotations/test.txt
    Flowers-102     imagelabels.mat with setid.mat beside it, for --split train, validation, test or trainval (both of the first)

The files of Pets and Flowers-102 also say which images belong to a split. Other images in their folder are left out.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from mixer_jax.data.sources.class_tree import is_image
from mixer_jax.errors import UserError
from mixer_jax.preparation.archives import small_tar_gz
from mixer_jax.preparation.files import require_file
from mixer_jax.preparation.label_tables import is_number, read_table
from mixer_jax.preparation.mat_files import MAX_MAT_BYTES, read_mat
from mixer_jax.storage import read_bytes

MAX_TEXT_BYTES = 2**34  # the labels of 300 million images
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
# {split: the names in setid.mat of the sets that it joins}
FLOWERS_SETS = {"train": ("trnid",), "validation": ("valid",), "trainval": ("trnid", "valid"), "test": ("tstid",)}


class FileLabels(NamedTuple):
    """The content of a file of labels."""

    description: str  # of the form of the file, for the user
    classes_of: dict[str, list[str]]  # {name of an image, with or without its folders: names of its classes or numbers from 0}
    class_names: tuple[str, ...] = ()  # in the data set's order; empty if it has none
    covers_all_images: bool = True  # If false, images that are not in the file belong to other splits.


def read_label_file(file: str, names: list[str], synsets: str, split: str) -> FileLabels:
    """Return the labels of a file. Its name and content show whether it is a public data set's (see above) or a table.

    Args:
        file: The path of the file of labels.
        names: The paths of the images in their folder or archive.
        synsets: The path of meta.mat or of a list of WordNet ids; only needed for ImageNet's numbers.
        split: The split to label; only needed for Flowers-102.

    Raises:
        UserError: The file is damaged, does not fit the images, or could mean several things.
    """
    if file.endswith(".tar.gz"):
        return _read_development_kit(file, names)
    if file.endswith(".mat"):
        return _read_flowers(file, split)
    text = read_text(file)
    if file.endswith(".json"):
        return _read_reassessed(text, names, file)
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].strip() == "ImageId,PredictionString":
        return _read_kaggle(lines[1:])
    rows = [row for line in lines if (row := line.split()) and not line.startswith("#")]
    if rows and all(len(row) == 1 and is_number(row[0]) for row in rows):
        if not synsets:
            raise UserError(f"{file} has one number a line: give also --synsets meta.mat, of the same development kit.")
        known = (
            synsets_of_mat(read_bytes(require_file(synsets), MAX_MAT_BYTES))
            if synsets.endswith(".mat")
            else read_text(synsets).split()
        )
        return _ground_truth(names, rows, known, file)
    if rows and all(len(row) == 4 and not is_image(row[0]) and all(map(is_number, row[1:])) for row in rows):
        return _read_pets(rows)
    table = read_table(text, file, names)
    classes_of: dict[str, list[str]] = {}
    for name, classes in table.rows:
        if name in classes_of:
            raise UserError(f"{file} has more than one line for {name}: put all its classes into one.")
        classes_of[name] = classes
    return FileLabels(table.description, classes_of)


def _read_development_kit(file: str, names: list[str]) -> FileLabels:
    kit = {Path(name).name: content for name, content in small_tar_gz(Path(file)).items()}
    if not {GROUND_TRUTH, META} <= set(kit):
        raise UserError(f"{file} holds no {GROUND_TRUTH} and {META}: it must be ILSVRC2012_devkit_t12.tar.gz.")
    rows = [line.split() for line in kit[GROUND_TRUTH].decode(errors="replace").splitlines()]
    return _ground_truth(names, rows, synsets_of_mat(kit[META]), file)


def _ground_truth(names: list[str], rows: list[list[str]], synsets: list[str], file: str) -> FileLabels:
    for number, row in enumerate(rows):
        if len(row) != 1 or not is_number(row[0]) or not 1 <= int(row[0]) <= len(synsets):
            raise UserError(f"{file} line {number + 1} is {' '.join(row)!r}: it must be a number from 1 to {len(synsets)}.")
    description = "an ILSVRC2012_ID a line, of the images in the order of their names"
    return _label_in_order(names, [[synsets[int(row[0]) - 1]] for row in rows], file, description)


def _label_in_order(names: list[str], classes: list[list[str]], file: str, description: str) -> FileLabels:
    """Return labels in which the i-th image, in the order of names, has the i-th classes."""
    if len(classes) != len(names):
        raise UserError(f"{file} has {len(classes)} labels for {len(names)} images: they must be of one set, and whole.")
    return FileLabels(description, dict(zip(sorted(names), classes, strict=True)))


def _read_reassessed(text: str, names: list[str], file: str) -> FileLabels:
    try:
        sets = json.loads(text)
        if not all(isinstance(labels, list) and all(type(label) is int and label >= 0 for label in labels) for labels in sets):
            raise ValueError("it holds something else")  # Unchecked, 1.7 would become class 1 and "12" classes 1 and 2.
        classes = [[str(label) for label in labels] for labels in sets]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is not ReaL's real.json, a list of lists of class numbers: {error}.") from error
    return _label_in_order(names, classes, file, "ReaL's sets of classes, of the images in the order of their names")


def _read_kaggle(lines: list[str]) -> FileLabels:
    """Return the labels of lines `IMAGE,CLASS left top right bottom CLASS left ...`, with five words for each object."""
    rows = [line.partition(",") for line in lines]
    classes_of = {f"{image}.JPEG": sorted(set(objects.split()[::5])) for image, _, objects in rows}
    return FileLabels("the objects of Kaggle's ImageNet", classes_of)


def _read_pets(rows: list[list[str]]) -> FileLabels:
    """Return the labels of lines `NAME CLASS-ID SPECIES BREED-ID`. NAME is CLASS_NUMBER without .jpg; CLASS-ID begins at 1."""
    class_of = {name: re.sub(r"_\d+$", "", name) for name, *_ in rows}
    number_of = {class_of[name]: int(number) for name, number, *_ in rows}
    classes_of = {f"{name}.jpg": [class_name] for name, class_name in class_of.items()}
    return FileLabels("a list of Oxford-IIIT Pets", classes_of, tuple(sorted(number_of, key=number_of.get)), False)


def _read_flowers(file: str, split: str) -> FileLabels:
    if split not in FLOWERS_SETS:
        raise UserError(f"--split {split}: with {file} it must be one of {', '.join(FLOWERS_SETS)}.")
    labels, sets = (read_mat(read_bytes(require_file(path), MAX_MAT_BYTES)) for path in (file, Path(file).with_name("setid.mat")))
    try:
        classes = list(map(_whole_number, labels["labels"]))
        if max(classes) > len(classes):
            raise ValueError(f"class {max(classes)} of {len(classes)} images")
        numbers = [_whole_number(number) for name in FLOWERS_SETS[split] for number in sets[name]]
        classes_of = {f"image_{number:05d}.jpg": [str(classes[number - 1])] for number in numbers}
    except (AttributeError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{file} and setid.mat beside it are not those of Flowers-102: {error!r}.") from error
    return FileLabels("those of Flowers-102", classes_of, tuple(map(str, range(1, max(classes) + 1))), False)


def synsets_of_mat(content: bytes) -> list[str]:
    """Return the WordNet ids of ILSVRC2012_IDs 1, 2, ... from the content of the development kit's meta.mat."""
    try:
        ids = {_whole_number(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in read_mat(content)["synsets"]}
        return [ids[number] for number in range(1, len(ids) + 1)]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{META} is not that of ILSVRC2012's development kit: {error!r}.") from error


def _whole_number(value: Any) -> int:
    """Return a number of a .mat file as an int. Raises ValueError if it is not whole or is below 1."""
    if int(value) != value or value < 1:
        raise ValueError(f"{value} is no number of an image or class")
    return int(value)


def read_text(file: str) -> str:
    """Return the content of a UTF-8 text file without its byte order mark. Raises UserError."""
    try:
        return read_bytes(require_file(file), MAX_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8 ({error}): save it as that.") from error
