"""The names of classes. Wherever two sets of classes meet, the classes are compared by name, not only by number.

Two sets meet when a run resumes (train.py), when an evaluator gives its data or its few-shot examples to a model
(evaluation/evaluators.py), when a head is restored from weights (checkpoints/transfer.py), and when data sets are mixed
(data/sources/mixture.py). Classes without names have the names 0, 1, ..., K - 1 and are compared by number.

ImageNet's classes are named by their WordNet ids. Weights that others have released do not name their classes. If they have 1000
or 21 843 classes, these are taken to be ImageNet's, in the order of the ids. wordnet.tsv.gz has a line for each id: the id, its
marks, and its words. Mark 1 stands for the 1000 classes of ILSVRC 2012, and mark 2 for the 21 843 classes of released weights.
The lists are those of timm 1.0.31 (imagenet_synsets, imagenet21k_goog_synsets, imagenet_synset_to_lemma). The words come from
WordNet 3.0, Princeton University.
"""

import functools
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mixer_jax.errors import UserError, printable

Names = tuple[str, ...]
WORDNET = Path(__file__).with_name("wordnet.tsv.gz")
LISTS = {"imagenet2012": "1", "imagenet21k": "2"}  # {name of a known list of classes: its mark in wordnet.tsv.gz}
MAX_CLASSES = 1_000_000  # JFT-3B has 30 000 classes.
MAX_SHOWN = 8  # names in a message


class ClassMap(NamedTuple):
    """The numbers that the classes of one set have in another set."""

    numbers: tuple[int, ...]  # Class i of the first set is class numbers[i] of the second.
    note: str  # a sentence for the user; empty if the sets are equal

    @property
    def is_identity(self) -> bool:
        """Return whether every class has the same number in both sets."""
        return self.numbers == tuple(range(len(self.numbers)))


def unnamed(count: int) -> Names:
    """Return the names of `count` classes that have none."""
    return tuple(map(str, range(count)))


def has_names(names: Names) -> bool:
    """Return whether any class has a name other than its number."""
    return names != unnamed(len(names))


def map_classes(names: Names, owner: str, target_names: Names, target_owner: str) -> ClassMap:
    """Return the numbers that classes have in another set, found by their names.

    The other set may have further classes. If exactly one of the sets has no names, the classes keep their numbers, and both sets
    must have the same number of classes; but classes that are called by numbers of the other set, such as 0 and 2, are those.

    Args:
      names: the names of the classes.
      owner: what these classes belong to, for messages.
      target_names: the names of the other set.
      target_owner: what the other set belongs to, for messages.

    Raises:
      UserError: a class is not in the other set, two classes of a set have the same name, or the numbers of classes differ where
        they must be equal.
    """
    if names == target_names:
        return ClassMap(tuple(range(len(names))), "")
    both = (
        f"Two sets of classes do not match. {owner}: {len(names)} ({_first_names(names)}). "
        f"{target_owner}: {len(target_names)} ({_first_names(target_names)})."
    )
    are_numbers = has_names(names) and not has_names(target_names) and set(names) <= set(target_names)
    if has_names(names) != has_names(target_names) and not are_numbers:
        nameless = target_owner if has_names(names) else owner
        if len(names) != len(target_names):
            raise UserError(f"{both} One does not name its classes ({nameless}), so both must have the same number of classes.")
        note = f"{owner}: taken to be the classes of {target_owner} in the same order, as {nameless} does not name its classes."
        return ClassMap(tuple(range(len(names))), note)
    number_of = {name: number for number, name in enumerate(target_names)}
    if unknown := [name for name in names if name not in number_of]:
        raise UserError(
            f"{both} Only in the first: {len(unknown)} ({_first_names(unknown)}). Classes with one meaning must have one name: "
            "rename them where the data lie, or prepare the data with --classes."
        )
    if len(number_of) < len(target_names) or len(set(names)) < len(names):
        raise UserError(f"{both} Two classes have one name: rename one.")
    how = "in another order" if len(names) == len(target_names) else f"only {len(names)} of the {len(target_names)}"
    return ClassMap(tuple(number_of[name] for name in names), f"{owner}: the classes of {target_owner}, {how}, mapped by name.")


def imagenet_names(count: int) -> Names | None:
    """Return the WordNet ids of ImageNet's 1000 or 21 843 classes, in the released weights' order; None for other counts."""
    return next((names for name in LISTS if len(names := known_names(name)) == count), None)


@functools.cache
def known_names(list_name: str) -> Names:
    """Return the class names of a list in LISTS."""
    return tuple(wordnet_id for wordnet_id, (marks, _) in _wordnet().items() if LISTS[list_name] in marks)


def describe(name: str) -> str:
    """Return a class in words: the first term that WordNet lists for a WordNet id, and any other name as it is."""
    if not (name[:1] == "n" and name[1:].isdecimal()):
        return name
    _, words = _wordnet().get(name, ("", name))
    return words.partition(",")[0]


def label(name: str) -> str:
    """Return the name of a class for people. A WordNet id is followed by its meaning, as in "n01440764 tench"."""
    words = describe(name)
    return name if words == name else f"{name} {words}"


def to_json(names: Names) -> str | list[str]:
    """Return class names as JSON stores them: the name of a known list, or else the list of the names."""
    known = next((name for name in LISTS if len(names) > MAX_SHOWN and names == known_names(name)), None)
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


def _first_names(names: Sequence[str]) -> str:
    """Return the first MAX_SHOWN names as printable text. The words of a WordNet id follow it."""
    text = ", ".join(map(label, names[:MAX_SHOWN])) + (", ..." if len(names) > MAX_SHOWN else "")
    return printable(text, kept="")
