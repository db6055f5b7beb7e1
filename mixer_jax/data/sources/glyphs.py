"""glyphs: an endless, labeled, synthetic data set of printed letters and digits, for pre-training on any machine.

Image `i` of a split is a pure function of (seed, split, i): nothing is stored, any thread can draw any image at any time, and a
split can be as long as one likes. Digits are drawn more often than letters. What an image looks like, and why: glyph_drawing.py.
"""

import numpy as np

from mixer_jax.data.sources.glyph_drawing import draw
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError

SPLITS = {"train": 0, "validation": 1}  # the number is part of the random seed of each image

# fmt: off
# One class per string.  Size and place are random, so characters that differ in nothing else share a class: the letters
# whose capital is an enlarged small letter, zero with the letter O, and capital I with small L (a bar).
CLASS_NAMES = (
    "0Oo", *"123456789",
    "A", "a", "B", "b", "Cc", "D", "d", "E", "e", "F", "f", "G", "g", "H", "h", "Il", "i", "J", "j", "K", "k", "L",
    "M", "m", "N", "n", "P", "p", "Q", "q", "R", "r", "Ss", "T", "t", "U", "u", "Vv", "Ww", "Xx", "Y", "y", "Zz",
)

# The classes take turns; a digit has DIGIT_TURNS of them in each round, a letter one.
DIGIT_TURNS = 4
TURNS = tuple(label for label, name in enumerate(CLASS_NAMES) for _ in range(DIGIT_TURNS if name[0].isdigit() else 1))
# fmt: on


class GlyphsSource:
    """`glyphs`: images of one character each, [32, 32, 3] uint8."""

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
        """Return the class, without drawing the image. The classes take turns, so that every split has the same shares."""
        if not 0 <= index < self._num_examples:
            raise IndexError(f"glyphs was made with {self._num_examples} images, there is no image {index}")
        return (TURNS[int(index) % len(TURNS)],)

    def locate(self, index: int) -> str:
        return f"glyphs record {index}"

    def identity(self) -> str:
        return "glyphs"
