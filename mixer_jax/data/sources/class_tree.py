"""Finds the images of a folder or an archive, and the class of each. The source `folder:` and `prepare` use the same rules.

1. A file or folder is hidden if its name begins with a dot or is __MACOSX. Hidden files and folders, and everything in hidden
   folders, are never images or classes.
2. A file is an image if its name ends with one of SUFFIXES, in upper or lower case. Other files are left out and counted by kind.
3. If DIR has a folder named SPLIT in which folders lie and no images, DIR/SPLIT/CLASS is read, otherwise DIR/CLASS. If a folder
   holds exactly one folder and no image, that folder is read in its place, unless it is a class.
4. Each folder there is a class, and its images lie directly in it. A folder without images is a class without images. If each
   class is a tar file, all images of a tar may instead lie in one folder of it.
5. Everything else is ambiguous, and is refused with a description of what was found: images that lie deeper than the classes'
   folders or beside them, and folders of splits (SPLIT_NAMES) if none of them is the requested split.
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
SHOWN = 4  # A message lists at most this many examples, or folders to choose from.
_reported: set[str] = set()

Advise = Callable[[Sequence[str]], str]
"""A function from folders that are not ambiguous to a sentence that says what to type to read one of them."""


def is_hidden(path: str) -> bool:
    """Return whether a file or folder, or a folder that it lies in, has a hidden name."""
    if path[:1] != "." and "/." not in path and "__MACOSX" not in path:  # This fast test settles most of millions of paths.
        return False
    return any((part[:1] == "." and part != ".") or part == "__MACOSX" for part in path.split("/"))


def is_image(path: str) -> bool:
    """Return whether the name of a file is that of an image."""
    return path.lower().endswith(SUFFIXES) and not is_hidden(path)


class ImageTree:
    """The content of a folder or an archive.

    Attributes:
      images: the paths of the images, in the order in which they were added.
      folders: the paths of the folders.
      left_out: the number of other files, by kind: a suffix, "hidden", "without a suffix", or "outside FOLDER".
      under: the folder to which the tree is restricted.
    """

    def __init__(self, under: str = ""):
        """Make an empty tree, restricted to the folder `under`, which is empty or ends with a slash."""
        self.images: list[str] = []
        self.folders: set[str] = set()
        self.left_out: Counter[str] = Counter()
        self.under, self._outside = under, f"outside {under}"

    def add(self, path: str) -> bool:
        """Add a file, or a folder if the path ends with a slash. Return whether it is an image."""
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
        """Return the kind under which a file is left out and counted, or "" for an image."""
        if not path.startswith(self.under):
            return self._outside
        if is_hidden(path[len(self.under) :]):
            return "hidden"
        return "" if path.lower().endswith(SUFFIXES) else os.path.splitext(path)[1].lower() or "without a suffix"


def list_folder(root: Path, *, plain_names: bool = True) -> ImageTree:
    """List a folder at any depth, in the order of names. Links are followed, because they are the user's own.

    Raises:
      UserError: there is no such folder, a folder is reached twice through a link, or, if `plain_names`, the name of an image has
        characters that cannot be printed.
      OSError: a folder cannot be listed. To skip it would lose its images silently.
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
    """Return what the user must do about a name that is not plain text.

    The name may be valid UTF-8 that this program could not read, because the locale made it read names as ASCII.
    """
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
    """The classes of the images of a tree.

    Attributes:
      root: the folder that holds the folders of the classes.
      names: the names of the classes, in the order of their numbers.
      of_images: the name of the class of each image of the tree; None for an image of another split.
    """

    root: str
    names: tuple[str, ...]
    of_images: list[str | None]


def find_classes(tree: ImageTree, where: str, split: str | None, advise: Advise, *, tars: bool = False) -> Classes:
    """Return the classes of a tree, by the rules at the top of this file.

    Args:
      tree: the content of the folder or archive.
      where: the name of the folder or archive, for messages.
      split: the requested split; "" if no split is requested; None if the tree is known to hold only the requested split.
      advise: returns what to type if the tree is refused.
      tars: whether the folders of the classes are tar files.

    Raises:
      UserError: the tree is ambiguous.
    """
    image_folders = {path.rpartition("/")[0] for path in tree.images}
    folders = _children(tree.folders | image_folders)
    root, below_split = _find_root(folders, image_folders, tree.under.rstrip("/"), split)
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
            raise UserError(_describe_ambiguity(tree.images, where, folders, image_folders, advise))
        of_images.append(sys.intern(name))  # All images of a class share one string, which saves memory.
    return Classes(root, sort_classes(names), of_images)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _children(paths: set[str]) -> defaultdict[str, set[str]]:
    """Return {folder: names of the folders in it}, given all paths of folders. The root is ""."""
    children = defaultdict(set)
    for path in paths:
        while path:
            above, _, name = path.rpartition("/")
            if name in children[above]:
                break
            children[above].add(name)
            path = above
    return children


def _find_root(folders: defaultdict[str, set[str]], image_folders: set[str], root: str, split: str | None) -> tuple[str, bool]:
    """Return the folder that holds the folders of the classes, and whether it is, or lies in, the folder of the split.

    Args:
      folders: {folder: names of the folders in it}.
      image_folders: the folders in which images lie directly.
      root: the folder in which the search begins.
      split: as for `find_classes`.
    """
    below_split = split is None
    while True:
        split_folder = _join(root, split or "")
        if not below_split and split in folders[root] and split_folder not in image_folders and folders[split_folder]:
            root, below_split = split_folder, True
            continue
        only_folder = next(iter(folders[root])) if len(folders[root]) == 1 and root not in image_folders else ""
        is_class = _join(root, only_folder) in image_folders or not folders[_join(root, only_folder)]
        if not only_folder or is_class or (not below_split and only_folder.lower() in SPLIT_NAMES):
            return root, below_split
        root = _join(root, only_folder)


def _describe_ambiguity(images: list[str], where: str, folders: dict, image_folders: set[str], advise: Advise) -> str:
    """Return a message that says at which depths images lie, and what to type.

    The folders that it recommends are those whose images are all CLASS/IMAGE.
    """
    examples: dict[int, str] = {}
    counts = Counter(path.count("/") for path in images)
    for path in images:
        examples.setdefault(path.count("/"), path)
    found = ", ".join(f"{counts[depth]} like {example}" for depth, example in sorted(examples.items())[:SHOWN])
    unambiguous = [
        folder
        for folder in sorted({path.rpartition("/")[0] for path in image_folders} - image_folders)
        if folder and not any(folders[_join(folder, name)] for name in folders[folder])
    ]
    return f"It is not clear what the classes of {where} are: CLASS/IMAGE is read, and there are {found}. {advise(unambiguous)}"


def report_left_out(where: str, left_out: Counter[str]) -> None:
    """Print how many files of each kind were left out of `where`. Each text is printed only once in a process."""
    by_count = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{count} {kind}" for kind, count in by_count if count)
    text = f"{where}: left out: {kinds}"
    if kinds and text not in _reported:
        _reported.add(text)
        print(as_message(text), file=sys.stderr)
