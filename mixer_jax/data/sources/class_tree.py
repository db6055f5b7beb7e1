"""Which files of a folder or an archive are images, and the class of each: one rule for `folder:` and for `prepare`.

1. A name that begins with a dot, and __MACOSX, is hidden: it is never data or a class, and neither is what lies in it.
2. A file with one of SUFFIXES, in any case, is an image. Everything else is left out and counted by its kind.
3. DIR/SPLIT/CLASS is read where DIR has a folder named SPLIT without images of its own, otherwise DIR/CLASS. A folder that holds
   one folder and no image is passed over.
4. A class is a folder there, with its images directly in it; a folder without images is a class without images. Of a tar of a
   class, the images may all lie in one folder.
5. Everything else could mean several things, and is refused with what was found: images deeper or beside the folders of the
   classes, and folders of splits (SPLIT_NAMES) of which none is the one that is asked for.
"""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from mixer_jax.data.sources.class_order import sort_classes
from mixer_jax.errors import UserError, as_message

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "trainval", "dev", "test", "testing"}
SHOWN = 4  # examples, or folders to choose from, in a message
_reported: set[str] = set()

Advise = Callable[[Sequence[str]], str]
"""Says what to type, given the folders of which each would be clear."""


def is_hidden(path: str) -> bool:
    """Return whether a file or folder, or one that it lies in, has a hidden name."""
    if path[:1] != "." and "/." not in path and "__MACOSX" not in path:  # most paths, of millions
        return False
    return any((part[:1] == "." and part != ".") or part == "__MACOSX" for part in path.split("/"))


def is_image(path: str) -> bool:
    """Return whether a file is an image, by its name."""
    return path.lower().endswith(SUFFIXES) and not is_hidden(path)


class ImageTree:
    """What lies in a folder or an archive: the paths of images and folders, and how many files of each kind are no data."""

    def __init__(self, under: str = ""):
        """Take only what lies in the folder `under`, which is empty or ends with a slash."""
        self.images: list[str] = []
        self.folders: set[str] = set()
        self.left_out: Counter[str] = Counter()
        self.under, self._outside = under, f"outside {under}"

    def add(self, path: str) -> bool:
        """Add a file, or a folder, whose path ends with a slash. Return whether it is an image."""
        folder, _, name = path.rpartition("/")
        kind = self._kind_left_out(path)
        if kind not in ("hidden", self._outside):
            self.folders.add(folder)
        if not kind:
            self.images.append(path)
        elif name:
            self.left_out[kind] += 1
        return not kind

    def _kind_left_out(self, path: str) -> str:
        """Return "" for an image."""
        if not path.startswith(self.under):
            return self._outside
        if is_hidden(path[len(self.under) :]):
            return "hidden"
        return "" if path.lower().endswith(SUFFIXES) else os.path.splitext(path)[1].lower() or "without a suffix"


def list_folder(root: Path, *, plain_names: bool = True) -> ImageTree:
    """List a folder at any depth, in the order of names. Links are followed, as they are the user's own.

    With `plain_names`, raises UserError for an image whose name is not plain text. Raises OSError for a folder that cannot be
    listed: its images would be missing without a word.
    """
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    tree, seen = ImageTree(), set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        if (real := os.path.realpath(folder)) in seen:
            raise UserError(f"{folder} is reached twice, through a link: remove the link, its images would count twice.")
        seen.add(real)
        tree.left_out["hidden"] += sum(map(is_hidden, folders))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        above = "" if folder == str(root) else os.path.relpath(folder, root) + "/"
        for name in folders:
            tree.add(f"{above}{name}/")
        for name in sorted(files):
            path = above + name
            if tree.add(path) and plain_names and not path.isprintable():
                raise UserError(f"{root} holds {path!r}: {_advise_name(path)}")
    return tree


def _advise_name(path: str) -> str:
    """Return what to do about a name that is not plain text: it may be, but this program was told to read names as ASCII."""
    try:
        is_text = os.fsencode(path).decode().isprintable()
    except UnicodeDecodeError:
        is_text = False
    if is_text:
        return f"the names of files are read as {sys.getfilesystemencoding()} here, and this one is UTF-8. Set PYTHONUTF8=1."
    return "rename it, names must be plain text in UTF-8."


def _raise(error: OSError) -> NoReturn:
    raise error


class Classes(NamedTuple):
    """The classes of the images of a tree."""

    root: str  # the folder that holds those of the classes
    names: tuple[str, ...]
    of_images: list[str | None]  # one for each image of the tree; None for an image of another split


def find_classes(tree: ImageTree, where: str, split: str | None, advise: Advise, *, tars: bool = False) -> Classes:
    """Return the classes of a tree by the rule above.

    Args:
      tree: what lies there.
      where: its name, for messages.
      split: the split that is asked for; empty if none is; None if the tree is known to be that of the split.
      advise: says what to type if the tree is refused.
      tars: its folders of classes are tars.

    Raises UserError if the layout could mean several things.
    """
    holding = {path.rpartition("/")[0] for path in tree.images}
    folders = _children(tree.folders | holding)
    root, below_split = _find_root(folders, holding, tree.under.rstrip("/"), split)
    names = folders[root]
    if not below_split and names and all(name.lower() in SPLIT_NAMES for name in names):
        wanted = f"none is named {split!r}" if split else "the split is empty"
        found = ", ".join(sorted(names))
        raise UserError(
            f"{where} has folders of splits ({found}), and {wanted}. {advise([_join(root, n) for n in sorted(names)])}"
        )
    prefix, inner_of, of_images = root and root + "/", {}, []
    for path in tree.images:
        if not path.startswith(prefix):
            of_images.append(None)
            continue
        name, _, rest = path[len(prefix) :].partition("/")
        inner = rest.rpartition("/")[0]
        if not rest or inner_of.setdefault(name, inner if tars else "") != inner:
            raise UserError(_describe_ambiguity(tree.images, where, folders, holding, advise))
        of_images.append(sys.intern(name))  # one string for all images of a class
    return Classes(root, sort_classes(names), of_images)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _children(paths: set[str]) -> defaultdict[str, set[str]]:
    """Return the names of the folders in each folder."""
    children = defaultdict(set)
    for path in paths:
        while path:
            above, _, name = path.rpartition("/")
            if name in children[above]:
                break
            children[above].add(name)
            path = above
    return children


def _find_root(folders: defaultdict[str, set[str]], holding: set[str], root: str, split: str | None) -> tuple[str, bool]:
    """Return the folder that holds those of the classes, and whether it is that of the split."""
    below_split = split is None
    while True:
        of_split = _join(root, split or "")
        if not below_split and split in folders[root] and of_split not in holding and folders[of_split]:
            root, below_split = of_split, True
            continue
        only = next(iter(folders[root])) if len(folders[root]) == 1 and root not in holding else ""
        is_class = _join(root, only) in holding or not folders[_join(root, only)]
        if not only or is_class or (not below_split and only.lower() in SPLIT_NAMES):
            return root, below_split
        root = _join(root, only)


def _describe_ambiguity(images: list[str], where: str, folders: dict, holding: set[str], advise: Advise) -> str:
    """Say at which depths images lie, and what to type: a folder is clear if all in it are CLASS/IMAGE."""
    examples: dict[int, str] = {}
    counts = Counter(path.count("/") for path in images)
    for path in images:
        examples.setdefault(path.count("/"), path)
    found = ", ".join(f"{counts[depth]} like {example}" for depth, example in sorted(examples.items())[:SHOWN])
    clear = [
        folder
        for folder in sorted({path.rpartition("/")[0] for path in holding} - holding)
        if folder and not any(folders[_join(folder, name)] for name in folders[folder])
    ]
    return f"It is not clear what the classes of {where} are: CLASS/IMAGE is read, and there are {found}. {advise(clear)}"


def report_left_out(where: str, left_out: Counter[str]) -> None:
    """Print how many files of each kind are no data of `where`: once in a process, however often it is opened."""
    by_count = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{count} {kind}" for kind, count in by_count if count)
    text = f"{where}: left out: {kinds}"
    if kinds and text not in _reported:
        _reported.add(text)
        print(as_message(text), file=sys.stderr)
