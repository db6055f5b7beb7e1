"""Which classes the images of a folder or archive have: from sub-folders, from a file of labels, or from ImageNet's own files.

A file of labels (`prepare --labels`) is one of

    NAME CLASS [CLASS ...]     a line an image, in any order; NAME is the image's, with or without its folders; a class is one of
                               --classes, or its number from 0; several classes make a set
    NUMBER                     a line an image, in the order of the images' names, as ILSVRC2012_validation_ground_truth.txt has
                               it: an ILSVRC2012_ID, from 1, which --synsets (meta.mat, or a text file whose line i is the WordNet
                               id of ILSVRC2012_ID i) turns into a class
    ILSVRC2012_devkit_t12.tar.gz   the development kit, which holds both of the latter

Classes are numbered in the order of `--classes` (a text file with a name a line, or another split's manifest.json), otherwise
in the order of their names: with WordNet ids that is the order of the released weights. ILSVRC2012_IDs have another order.
"""

import io
import json
from collections import Counter
from pathlib import Path

from mixer_jax.config import UserError
from mixer_jax.preparation.archives import small_tar_gz

Labels = list[tuple[int, ...]]
MAX_CLASSES = 1_000_000  # JFT-3B has 30 000
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def read_classes(file: str) -> tuple[str, ...]:
    """The names of `--classes`; empty when none is given."""
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


def by_folder(names: list[str], classes: tuple[str, ...]) -> tuple[tuple[str, ...], Labels]:
    """The class of an image is the folder it lies in."""
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


def by_file(names: list[str], file: str, synsets: str, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Labels]:
    """The classes of images from a file of labels, as above."""
    if file.endswith(".tar.gz"):
        kit = {Path(name).name: content for name, content in small_tar_gz(Path(file)).items()}
        if not {GROUND_TRUTH, META} <= set(kit):
            raise UserError(f"{file} holds no {GROUND_TRUTH} and {META}: it must be ILSVRC2012_devkit_t12.tar.gz.")
        rows = [line.split() for line in kit[GROUND_TRUTH].decode(errors="replace").splitlines()]
        return _by_ground_truth(names, rows, synsets_of_mat(kit[META]), file, classes)
    rows = [row for line in read_text(file).splitlines() if (row := line.replace(",", " ").split())]
    if rows and all(len(row) == 1 for row in rows):
        if not synsets:
            raise UserError(f"{file} has one number a line: give also --synsets meta.mat, of the same development kit.")
        known = synsets_of_mat(_existing(synsets).read_bytes()) if synsets.endswith(".mat") else read_text(synsets).split()
        return _by_ground_truth(names, rows, known, file, classes)
    return _by_names(names, rows, file, classes)


def _by_ground_truth(
    names: list[str], rows: list[list[str]], synsets: list[str], file: str, classes: tuple[str, ...]
) -> tuple[tuple[str, ...], Labels]:
    if len(rows) != len(names):
        raise UserError(f"{file} has {len(rows)} labels for {len(names)} images: they must be of one set, and whole.")
    for number, row in enumerate(rows):
        if len(row) != 1 or not _is_number(row[0]) or not 1 <= int(row[0]) <= len(synsets):
            raise UserError(f"{file} line {number + 1} is {' '.join(row)!r}: it must be a number from 1 to {len(synsets)}.")
    label_of = dict(zip(sorted(names), [[synsets[int(row[0]) - 1]] for row in rows], strict=True))
    return resolve([label_of[name] for name in names], classes, file)


def _by_names(names: list[str], rows: list[list[str]], file: str, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Labels]:
    labels = {row[0]: row[1:] for row in rows}
    if len(labels) != len(rows):
        twice = Counter(row[0] for row in rows).most_common(1)[0][0]
        raise UserError(f"{file} has more than one line for {twice}: put all its classes into one.")
    found = [name if name in labels else name.rpartition("/")[2] for name in names]
    missing = next((name for name, key in zip(names, found, strict=True) if key not in labels), None)
    if missing:
        raise UserError(f"{file} has no line for {missing}: add one, or remove the image.")
    if len(set(found)) != len(names) or len(labels) != len(names):
        unused = next(iter(set(labels) - set(found)), None)
        which = (
            f"no image is named {unused}" if unused else "images of one name lie in several folders: name them with their folders"
        )
        raise UserError(f"{file} has {len(labels)} lines for {len(names)} images: {which}.")
    return resolve([labels[key] for key in found], classes, file)


def resolve(words: list[list[str]], classes: tuple[str, ...], where: str) -> tuple[tuple[str, ...], Labels]:
    """Class names or numbers -> (class names, sorted labels of each image)."""
    if not classes:
        seen = {word for row in words for word in row}
        if all(map(_is_number, seen)):
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
    if _is_number(word) and int(word) < len(number_of):
        return int(word)
    raise UserError(
        f"{where} has the label {word!r}: it must be one of the {len(number_of)} classes or a number below. Mend one."
    )


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 10


def synsets_of_mat(content: bytes) -> list[str]:
    """The WordNet ids of ILSVRC2012_IDs 1, 2, ... from the development kit's meta.mat.

    SciPy believes the sizes that such a file claims: it must be ImageNet's own.
    """
    from scipy.io import loadmat  # heavy, and only this needs it

    try:
        rows = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    except (KeyError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise UserError(f"{META} is not that of ILSVRC2012's development kit: {error!r}.") from error
    return [ids.get(number, "") for number in range(1, max(ids) + 1)]


def read_text(file: str) -> str:
    try:
        return _existing(file).read_text()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text: {error}.") from error


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {file}.")
    return path
