"""A source of image files without labels, for predictions: files that a user names, and images in folders at any depth."""

from collections.abc import Sequence
from pathlib import Path

from mixer_jax.data.sources.class_tree import SUFFIXES, list_folder, report_left_out
from mixer_jax.data.sources.image_files import read_image
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError


def find_image_files(paths: Sequence[str]) -> list[str]:
    """Return the files among `paths`, and the images at any depth in the folders among them, in order.

    A file that the user names is taken whatever its name is. In a folder, only visible files with the suffix of an image are
    taken (`class_tree.SUFFIXES`). Raises UserError for a path that does not exist, and for a folder without images.
    """
    files: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            tree = list_folder(Path(path), plain_names=False)
            if not tree.images:
                raise UserError(f"{path} holds no image at any depth: names that end in {', '.join(SUFFIXES)} are images.")
            report_left_out(path, tree.left_out)
            files += [str(Path(path) / image) for image in tree.images]
        elif Path(path).exists() or Path(path).is_symlink():
            files.append(path)
        else:
            raise UserError(f"There is no file or folder {path}.")
    return files


class UnlabeledFiles:
    """A source of image files, whose records have no labels."""

    max_labels, num_classes, class_names = 1, 0, ()

    def __init__(self, files: Sequence[str]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        return Record(read_image(Path(self._files[index])), ())

    def labels(self, index: int) -> tuple[int, ...]:
        """Return no labels."""
        return ()

    def locate(self, index: int) -> str:
        """Return the file of a record."""
        return self._files[index]

    def key(self, index: int) -> str:
        """Return the file of a record."""
        return self._files[index]

    def identity(self) -> str:
        """Return the number of files. Predictions are never resumed, so this need not identify the records."""
        return f"{len(self._files)} files without labels"
