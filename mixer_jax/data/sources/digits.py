"""The source `digits`: the UCI handwritten digits, 1797 real images of 10 classes that come with scikit-learn."""

import numpy as np

from mixer_jax.data.images.resize import resize
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError

SPLITS = ("train", "test")


class DigitsSource:
    """The source `digits`. Split "test" is every fifth of the 1797 records (359), and "train" the other 1438, in order.

    The images have 8 x 8 pixels and 17 gray levels. They are resized bilinearly to 32 x 32 pixels with 256 levels, so that random
    crops of them vary in fine enough steps.
    """

    num_classes = 10
    class_names = tuple("0123456789")
    max_labels = 1

    def __init__(self, split: str):
        if split not in SPLITS:
            raise UserError(f"digits has no split {split!r}: it has {', '.join(SPLITS)}.")
        from sklearn.datasets import load_digits  # It is slow to import, and only this source needs it.

        digits = load_digits()
        chosen = (np.arange(len(digits.target)) % 5 == 4) == (split == "test")
        gray = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        self._images = np.stack([resize(np.stack([image] * 3, axis=-1), 32, 32) for image in gray])
        self._labels = digits.target[chosen]
        self._split = split

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        return Record(self._images[index], self.labels(index))

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the label of a record."""
        return (int(self._labels[index]),)

    def locate(self, index: int) -> str:
        """Return the split and the number of a record."""
        return f"digits {self._split} record {index}"

    def key(self, index: int) -> str:
        """Return the number of a record."""
        return str(index)

    def identity(self) -> str:
        """Return a constant, because the records never change."""
        return "digits"
