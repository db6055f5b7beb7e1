"""The source `glyphs`: an endless synthetic dataset of printed letters and digits, for pre-training on any machine.

Image i of a split is a pure function of (seed, split, i). So nothing is stored, any thread can draw any image at any time, and a
split can have any length. Digits are drawn more often than letters. glyph_drawing.py says what the images look like, and why.
"""

import numpy as np

from mixer_jax.data.sources.glyph_drawing import draw
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError

SPLITS = {"train": 0, "validation": 1}  # The number is part of the random seed of each image.

# fmt: off
# Each string is a class. Size and position are random, so characters that differ in nothing else share a class: letters whose
# upper case is an enlarged lower case, zero and the letter O, and upper-case I and lower-case L, which are both a bar.
CLASS_NAMES = (
    "0Oo", *"123456789",
    "A", "a", "B", "b", "Cc", "D", "d", "E", "e", "F", "f", "G", "g", "H", "h", "Il", "i", "J", "j", "K", "k", "L",
    "M", "m", "N", "n", "P", "p", "Q", "q", "R", "r", "Ss", "T", "t", "U", "u", "Vv", "Ww", "Xx", "Y", "y", "Zz",
)

# TURNS is one round of classes, which the records repeat. It has each digit DIGIT_TURNS times and each other class once.
DIGIT_TURNS = 4
TURNS = tuple(label for label, name in enumerate(CLASS_NAMES) for _ in range(DIGIT_TURNS if name[0].isdigit() else 1))
# fmt: on


class GlyphsSource:
    """The source `glyphs`. Each image shows one character, [32, 32, 3] uint8."""

    class_names = CLASS_NAMES
    num_classes = len(CLASS_NAMES)
    max_labels = 1

    def __init__(self, split: str, num_examples: int, seed: int = 0):
        if split not in SPLITS:
            raise UserError(f"glyphs has no split {split!r}: it has {', '.join(SPLITS)}.")
        if num_examples < 1:
            raise UserError(f"data.num_examples is {num_examples}: glyphs are made on the fly, say how many (at least 1).")
        self._num_examples = num_examples
        self._seed_and_split = (seed, SPLITS[split])

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, index: int) -> Record:
        (label,) = labels = self.labels(index)
        rng = np.random.default_rng(np.random.SeedSequence([*self._seed_and_split, int(index)]))
        return Record(draw(CLASS_NAMES[label], rng), labels)

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the class, without drawing the image. The classes repeat in a fixed order, so all splits have equal shares."""
        if not 0 <= index < self._num_examples:
            raise IndexError(f"glyphs was made with {self._num_examples} images, there is no image {index}")
        return (TURNS[int(index) % len(TURNS)],)

    def locate(self, index: int) -> str:
        """Return the number of a record."""
        return f"glyphs record {index}"

    def key(self, index: int) -> str:
        """Return the number of a record."""
        return str(index)

    def identity(self) -> str:
        """Return a constant, because record i of a split never changes."""
        return "glyphs"
