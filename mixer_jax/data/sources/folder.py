"""The source `folder:DIR`: image files in one folder per class. It needs no preparation, and is meant for small data.

class_tree.py has the rules that say which files are images and what their classes are.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixer_jax.data.sources.class_tree import (
    SHOWN,
    SPLIT_NAMES,
    SUFFIXES,
    Advise,
    find_classes,
    is_hidden,
    list_folder,
    report_left_out,
)
from mixer_jax.data.sources.image_files import read_image
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError


class FolderSource:
    """The source `folder:DIR`. Classes are numbered in the order of their names: whole numbers as numbers, others as text."""

    max_labels = 1

    def __init__(self, directory: str, split: str):
        root = Path(directory).expanduser() / split
        if not root.is_dir():
            raise UserError(_explain_missing(root, Path(directory).expanduser()))
        tree = list_folder(root)
        classes = find_classes(tree, str(root), None if split else "", _advise(root))
        self.class_names = classes.names
        if not self.class_names:
            raise UserError(f"{root} has no sub-folders: every class is a sub-folder that holds its images.")
        counts = Counter(classes.of_images)
        for name in self.class_names:
            if not counts[name]:
                raise UserError(
                    f"{root / classes.root / name} holds no image ({', '.join(SUFFIXES)}): remove the folder or fill it."
                )
        self._root, self.num_classes = root, len(self.class_names)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        labels = np.array([label_of[name] for name in classes.of_images], np.int32)
        order = np.argsort(labels, kind="stable")
        self._files, self._labels = [tree.images[number] for number in order], labels[order]
        report_left_out(str(root), tree.left_out)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        return Record(read_image(self._root / self._files[index]), self.labels(index))

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the label of a record, without reading its image."""
        return (int(self._labels[index]),)

    def locate(self, index: int) -> str:
        """Return the file of a record."""
        return str(self._root / self._files[index])

    def key(self, index: int) -> str:
        """Return the path of a record's file below the folder of the split."""
        return self._files[index]

    def identity(self) -> str:
        """Return a digest of the files' names in the order of the records.

        Earlier versions numbered all classes in the order of text. If the classes are now in another order, the identity says so.
        Then a run that began with an earlier version is not resumed, because its class numbers are others.
        """
        digest = hashlib.sha256("\n".join(self._files).encode()).hexdigest()[:16]
        in_order_of_text = self.class_names == tuple(sorted(self.class_names))
        return digest if in_order_of_text else f"{digest} with classes in the order of numbers"


def _explain_missing(root: Path, directory: Path) -> str:
    """Return a message that says that the folder of a split is missing, which folders are read, and which there are."""
    text = f"There is no folder {root}. folder:DIR with split SPLIT reads DIR/SPLIT/CLASS/IMAGE, with split '' DIR/CLASS/IMAGE"
    if not directory.is_dir():
        return f"{text}."
    names = _visible_folders(directory)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{text}; {directory} has the folders {', '.join(names[:SHOWN]) or '(none)'}{more}."


def folders_of_splits(directory: Path) -> tuple[str, ...]:
    """Return the names of those folders in a folder that have a usual name of a split, such as train or val."""
    return tuple(name for name in _visible_folders(directory) if name.lower() in SPLIT_NAMES)


def _visible_folders(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _advise(root: Path) -> Advise:
    """Return a function that says which folders inside `root` the user can name instead."""

    def advise(folders: Sequence[str]) -> str:
        choices = " or ".join(f"folder:{root / folder}" for folder in folders[:SHOWN])
        return f"Set data.source to {choices} and data.split to ''." if choices else "Move each class's images into one folder."

    return advise
