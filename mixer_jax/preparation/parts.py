"""The parts of a split that several machines make together: `prepare --part I/N`.

Part I of N makes every N-th shard, beginning with shard I - 1. The shards are random samples of one size, so the parts take about
the same time.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mixer_jax.errors import UserError


@dataclass(frozen=True)
class Part:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def shards(self, num_shards: int) -> range:
        """Return the numbers of the shards of this part, if the split has `num_shards`. It may have none."""
        return range(self.number - 1, num_shards, self.count)


def parse_part(text: str) -> Part:
    """Return the part that `--part text` names. Raises UserError if there is no such part."""
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    part = Part(int(numbers[1]), int(numbers[2])) if numbers else None
    if part is None or not 1 <= part.number <= part.count:
        raise UserError(f"--part {text}: it must be I/N, such as 3/64, with I from 1 to N: parts are counted from 1.")
    return part


def unfinished_parts(finished: Iterable[int], num_shards: int, count: int) -> list[Part]:
    """Return those of `count` parts that lack shards, if the shards with the numbers `finished` are made."""
    finished_of = Counter(number % count + 1 for number in finished)
    parts = (Part(number, count) for number in range(1, min(count, num_shards) + 1))
    return [part for part in parts if finished_of[part.number] < len(part.shards(num_shards))]
