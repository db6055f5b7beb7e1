"""Sorts the names of classes whose order is not given otherwise: whole numbers as numbers, everything else as text.

If whole numbers were sorted as text, 10 would come before 2, and class number 2 of 0, 1, 10, 11, 2, ... would be the class named
10. Labels from a file of numbers, or a test set whose folders are named 0 to 999, would then mean other classes.
"""

import re
from collections.abc import Iterable

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names: as numbers if all of them are whole numbers, otherwise as text."""
    distinct = sorted(set(names))
    if all(map(_WHOLE_NUMBER.fullmatch, distinct)):
        distinct.sort(key=int)  # The sort is stable, so 1 and 01 stay in the order of text.
    return tuple(distinct)
