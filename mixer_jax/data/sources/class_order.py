"""The order of classes that have nothing but their names: whole numbers as numbers, everything else as text.

As text, 10 comes before 2. Class 2 of 0, 1, 10, 11, 2, ... would be 10, so that labels from a file of numbers, or a test set
whose folders are named 0 to 999, would mean other classes.
"""

import re
from collections.abc import Iterable

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names: as numbers if all of them are whole numbers, otherwise as text."""
    distinct = sorted(set(names))
    if all(map(_WHOLE_NUMBER.fullmatch, distinct)):
        distinct.sort(key=int)  # stable: 1 and 01 stay in the order of text
    return tuple(distinct)
