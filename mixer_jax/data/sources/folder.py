"""Image files in folders, a folder for each class. Nothing is prepared: for small data."""

import hashlib
import os
from pathlib import Path

import numpy as np

from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError


class FolderSource:
    """`folder:DIR`: one sub-folder a class, numbered in the order of their names."""

    max_labels = 1
    SUFFIXES = (".jpg", ".jpeg", ".png")

    def __init__(self, directory: str, split: str):
        root = Path(directory).expanduser() / split
        if not root.is_dir():
            raise UserError(f"There is no folder {root}. folder:DIR with split SPLIT reads DIR/SPLIT/CLASS/*.jpg|jpeg|png.")
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        if not folders:
            raise UserError(f"{root} has no sub-folders: every class is a sub-folder that holds its images.")
        self._root, self.class_names, self.num_classes = root, tuple(folders), len(folders)
        self._files: list[str] = []
        counts = []
        for folder in folders:
            files = sorted(entry.name for entry in os.scandir(root / folder) if entry.name.lower().endswith(self.SUFFIXES))
            if not files:
                raise UserError(f"{root / folder} holds no image ({', '.join(self.SUFFIXES)}): remove the folder or fill it.")
            self._files += [f"{folder}/{file}" for file in files]
            counts.append(len(files))
        self._labels = np.repeat(np.arange(len(folders), dtype=np.int32), counts)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        return Record((self._root / self._files[index]).read_bytes(), self.labels(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return (int(self._labels[index]),)

    def locate(self, index: int) -> str:
        return str(self._root / self._files[index])

    def identity(self) -> str:
        return hashlib.sha256("\n".join(self._files).encode()).hexdigest()[:16]
