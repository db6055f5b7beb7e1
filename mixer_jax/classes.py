"""Names of classes, and what happens where two sets of classes meet: they are compared by name, not by number alone.

Two sets meet where a run's data have changed since its last checkpoint (train.py), where an evaluator's data are given to a model
(evaluation/evaluators.py), where few-shot examples are (the same), where a head is restored (checkpoints/transfer.py), and where
data sets are mixed (data/sources/mixture.py). Classes without names are called 0, 1, ..., K - 1, and are compared by number.

ImageNet's classes are called by their WordNet ids. Weights that others released do not name their classes: with 1000 or 21 843
of them, they are ImageNet's in the order of the ids. wordnet.tsv.gz has a line for each id: the id, whether it is one of the 1000
classes of ILSVRC 2012 (1) and of the 21 843 of the released weights (2), and its words. The lists are those of timm 1.0.31
(imagenet_synsets, imagenet21k_goog_synsets, imagenet_synset_to_lemma); the words come from WordNet 3.0, Princeton University.
"""

import functools
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mixer_jax.errors import UserError, printable

Names = tuple[str, ...]
WORDNET = Path(__file__).with_name("wordnet.tsv.gz")
LISTS = {"imagenet2012": "1", "imagenet21k": "2"}  # name of a known list of classes -> its mark in the file
MAX_CLASSES = 1_000_000  # JFT-3B has 30 000
SHOWN = 8  # names in a message


class ClassMap(NamedTuple):
    """How the classes of one set are numbered in another."""

    numbers: tuple[int, ...]  # class i of the first set is class numbers[i] of the second
    note: str  # what a user should be told; empty when the sets are equal

    @property
    def is_identity(self) -> bool:
        return self.numbers == tuple(range(len(self.numbers)))


def unnamed(count: int) -> Names:
    """Return the names of `count` classes that have none."""
    return tuple(map(str, range(count)))


def has_names(names: Names) -> bool:
    """Return whether the classes are called anything but their numbers."""
    return names != unnamed(len(names))


def map_classes(names: Names, of: str, onto: Names, onto_what: str) -> ClassMap:
    """Return how the classes `names` are numbered among `onto`, by name; some of `onto` may be missing in `names`.

    `of` and `onto_what` say whose classes these are. If one of the sets has no names, both must have as many classes, which are
    then compared by number. Raises UserError for a name that `onto` does not have.
    """
    if names == onto:
        return ClassMap(tuple(range(len(names))), "")
    both = f"Two sets of classes do not match. {of}: {len(names)} ({_some(names)}). {onto_what}: {len(onto)} ({_some(onto)})."
    if has_names(names) != has_names(onto):
        which = onto_what if has_names(names) else of
        if len(names) != len(onto):
            raise UserError(f"{both} One does not name its classes ({which}): then both must have as many.")
        note = f"{of}: taken to be the classes of {onto_what} in the same order, as {which} does not name its classes."
        return ClassMap(tuple(range(len(names))), note)
    number_of = {name: number for number, name in enumerate(onto)}
    if unknown := [name for name in names if name not in number_of]:
        raise UserError(
            f"{both} Only in the first: {len(unknown)} ({_some(unknown)}). Classes of one meaning must have one name: rename "
            "them where the data lie, or prepare the data with --classes."
        )
    if len(number_of) < len(onto) or len(set(names)) < len(names):
        raise UserError(f"{both} Two classes have one name: rename one.")
    how = "in another order" if len(names) == len(onto) else f"only {len(names)} of the {len(onto)}"
    return ClassMap(tuple(number_of[name] for name in names), f"{of}: the classes of {onto_what}, {how}, mapped by name.")


def imagenet_names(count: int) -> Names | None:
    """Return the WordNet ids of ImageNet's 1000 or 21 843 classes, in the released weights' order; None for other counts."""
    return next((names for name in LISTS if len(names := known_names(name)) == count), None)


@functools.cache
def known_names(list_name: str) -> Names:
    """Return the class names of a list in LISTS."""
    return tuple(wordnet_id for wordnet_id, (marks, _) in _wordnet().items() if LISTS[list_name] in marks)


def describe(name: str) -> str:
    """Return what a class is, in words: of a WordNet id its first word, of any other name the name itself."""
    if not (name[:1] == "n" and name[1:].isdecimal()):
        return name
    _, words = _wordnet().get(name, ("", name))
    return words.partition(",")[0]


def to_json(names: Names) -> str | list[str]:
    """Return what stands for class names in JSON: the name of a known list, or the names."""
    known = next((name for name in LISTS if len(names) > SHOWN and names == known_names(name)), None)
    return known or list(names)


def from_json(value: object) -> Names:
    """Return the class names that `to_json` turned into `value`. Raises ValueError for anything else."""
    if isinstance(value, str) and value in LISTS:
        return known_names(value)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError("class names must be a list of texts, or the name of a known list")


@functools.cache
def _wordnet() -> dict[str, tuple[str, str]]:
    """Return {id: (marks, words)}, in the order of the ids."""
    rows = (line.split("\t") for line in gzip.decompress(WORDNET.read_bytes()).decode().splitlines())
    return {wordnet_id: (marks, words) for wordnet_id, marks, words in rows}


def _some(names: Sequence[str]) -> str:
    """Return the first few names, printable, in words where that says more."""
    shown = [name if describe(name) == name else f"{name} {describe(name)}" for name in names[:SHOWN]]
    text = ", ".join(shown) + (", ..." if len(names) > SHOWN else "")
    return printable(text, kept="")
