"""Image files without labels, for predictions: files that a user names, and those in folders at any depth."""

from collections.abc import Sequence
from pathlib import Path

from mixer_jax.data.sources.class_tree import SUFFIXES, list_folder, report_left_out
from mixer_jax.data.sources.image_files import read_image
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError


def find_image_files(paths: Sequence[str]) -> list[str]:
    """Return the files among `paths`, whatever their names, and the images in the folders among them (class_tree.py), in order.

    Raises UserError for a path that is not there, and for a folder without images.
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
    """Image files as a source whose records have no labels."""

    max_labels, num_classes, class_names = 1, 0, ()

    def __init__(self, files: Sequence[str]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        return Record(read_image(Path(self._files[index])), ())

    def labels(self, index: int) -> tuple[int, ...]:
        return ()

    def locate(self, index: int) -> str:
        return self._files[index]

    def identity(self) -> str:
        return f"{len(self._files)} files without labels"
