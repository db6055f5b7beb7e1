"""The UCI handwritten digits that scikit-learn carries: 1797 real images of 10 classes, without a download."""

import numpy as np

from mixer_jax.data.images.resize import resize
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError

SPLITS = ("train", "test")


class DigitsSource:
    """`digits`: of the set's 1797 records, in its order, split "test" is every fifth (359), "train" the other 1438.

    The 8 x 8 images of 17 grey levels come as 32 x 32 of 256, bilinear, so that crops of them are fine enough.
    """

    num_classes = 10
    class_names = tuple("0123456789")
    max_labels = 1

    def __init__(self, split: str):
        if split not in SPLITS:
            raise UserError(f"digits has no split {split!r}: it has {', '.join(SPLITS)}.")
        from sklearn.datasets import load_digits  # heavy, and only some runs need it

        digits = load_digits()
        chosen = (np.arange(len(digits.target)) % 5 == 4) == (split == "test")
        grey = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        self._images = np.stack([resize(np.stack([image] * 3, axis=-1), 32, 32) for image in grey])
        self._labels = digits.target[chosen]
        self._split = split

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        return Record(self._images[index], self.labels(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return (int(self._labels[index]),)

    def locate(self, index: int) -> str:
        return f"digits {self._split} record {index}"

    def identity(self) -> str:
        return "digits"
