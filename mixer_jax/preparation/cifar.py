"""CIFAR-10 and CIFAR-100 from the archives of their binary versions, which www.cs.toronto.edu/~kriz/cifar.html describes.

A record of CIFAR-10 begins with one byte for the class. A record of CIFAR-100 begins with one byte for the coarse class and one
for the fine class; the fine class is used here. 3 x 1024 bytes for red, green and blue follow. Images become PNG files, which are
lossless. The archives for Python are refused, because they contain pickles, and reading a pickle can run any code.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.preparation.archives import small_tar_gz
from mixer_jax.preparation.files import require_file

SIDE = 32  # pixels
FILES = {  # {(split, bytes of labels in a record): names of files}
    ("train", 1): [f"data_batch_{number}.bin" for number in range(1, 6)],
    ("test", 1): ["test_batch.bin"],
    ("train", 2): ["train.bin"],
    ("test", 2): ["test.bin"],
}
CLASS_NAMES = {"batches.meta.txt": 1, "fine_label_names.txt": 2}  # {file of class names: bytes of labels in a record}


class CifarInputs:
    """A split of CIFAR in the order of its files, as the `Inputs` of inputs.py. It is held in memory (154 MB)."""

    def __init__(self, file: Path, split: str):
        if split not in ("train", "test"):
            raise UserError(f"--split {split}: CIFAR has train and test.")
        members = {name.rpartition("/")[2]: content for name, content in small_tar_gz(require_file(file)).items()}
        label_bytes = next((number for name, number in CLASS_NAMES.items() if name in members), 0)
        if "data_batch_1" in members or ("train" in members and "meta" in members):
            binary = file.name.replace("python", "binary")
            raise UserError(f"{file} holds pickles, which run code when they are read. Download {binary} from the same page.")
        names = FILES.get((split, label_bytes), [])
        if not names or not set(names) <= set(members):
            raise UserError(f"{file} must be cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, and whole: copy it again.")
        content = b"".join(members[name] for name in names)
        record_bytes = label_bytes + 3 * SIDE * SIDE
        if len(content) % record_bytes:
            raise UserError(
                f"{file}: {', '.join(names)} have {len(content)} bytes, not records of {record_bytes}: copy it again."
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, record_bytes)
        text = members[next(name for name in CLASS_NAMES if name in members)].decode(errors="replace")
        self.class_names = tuple(text.split())
        self._labels, self._pixels, self._split = records[:, label_bytes - 1], records[:, label_bytes:], split
        if np.max(self._labels, initial=0) >= len(self.class_names):
            raise UserError(f"{file} has the label {np.max(self._labels)}, and {len(self.class_names)} classes: copy it again.")
        self.left_out: Counter[str] = Counter()
        self._sha256 = hashlib.sha256(text.encode() + content).hexdigest()

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, number: int) -> str:
        """Return a name of our own for an image, because CIFAR's binary versions have none."""
        return f"{self._split}_{number:05d}.png"

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
        """Yield (number, PNG file, labels) of the images with these numbers."""
        for number in numbers:
            blue_green_red = self._pixels[number].reshape(3, SIDE, SIDE)[::-1].transpose(1, 2, 0)
            _, png = cv2.imencode(".png", blue_green_red, [cv2.IMWRITE_PNG_COMPRESSION, 9])
            yield number, png.tobytes(), (int(self._labels[number]),)

    def images_of_class(self) -> np.ndarray:
        """Return the number of images of each class, int64 [K]."""
        return np.bincount(self._labels, minlength=len(self.class_names))

    def sha256(self) -> str:
        """Return the SHA-256 of the class names and of the split's records."""
        return self._sha256
