"""Writes DIR/SPLIT/duplicates.html, a page that shows dropped images beside the images that they are copies of.

A person can thus judge whether --near-duplicate-correlation is right for the data: the pairs with the largest distances are those
that another threshold would decide differently. The images are read from the sources once more, but only those that are shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mixer_jax.data.sources.manifest import Shard
from mixer_jax.errors import UserError
from mixer_jax.pages.page import check_installed, write_page
from mixer_jax.pages.parts import Pairs, Part, Section, Text, number
from mixer_jax.pages.pictures import picture
from mixer_jax.preparation.inputs import Inputs, decode_input
from mixer_jax.preparation.near_duplicates.references import WITHIN, References

PAGE = "duplicates.html"
MAX_EXACT, MAX_NEAR = 24, 120  # the most pairs on the page, so that it has less than 3 MB

Row = Sequence  # (name, kind, distance, source, name of the original), as in the manifest


class NamedImages(Protocol):
    """The images of a source, by numbers. inputs.Inputs and references.RecordsInputs are such sources."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """Return the name of an image."""

    def read(self, numbers: Iterable[int]) -> Iterable[tuple]:
        """Yield (number, bytes of the image file, labels)."""


def write_pairs_page(target: Path, inputs: Inputs, references: References, shards: Sequence[Shard]) -> None:
    """Write the page of a split, or print why there is none.

    Args:
        target: The folder of the split.
        inputs: The images that were prepared.
        references: The images whose copies were dropped.
        shards: The shards of the split, which list the copies.
    """
    rows = [row for shard in shards for row in shard.duplicates]
    exact = sorted((row for row in rows if row[1] == "exact"), key=lambda row: (*row[3:], row[0]))
    near = sorted((row for row in rows if row[1] == "near"), key=lambda row: (row[2], row[0]))
    groups = [("Exact copies", exact[:MAX_EXACT], len(exact)), ("Near copies, nearest first", near[:MAX_NEAR], len(near))]
    if len(near) > MAX_NEAR:
        half = MAX_NEAR // 2
        groups[1:] = [
            ("Near copies, nearest first", near[:half], len(near)),
            ("Near copies, the last before the threshold", near[-half:], len(near)),
        ]
    try:
        check_installed()
        images = _read(inputs, references, [row for _, shown, _ in groups for row in shown])
        lead = f"{number(len(exact))} exact and {number(len(near))} near copies were left out of {target.name}."
        sections = [Section(title, _parts(shown, count, images)) for title, shown, count in groups if shown]
        write_page(
            target / PAGE, f"Copies left out of {target.name}", lead, sections, "the manifest of the split and its sources"
        )
    except UserError as error:
        print(f"{target / PAGE} is not written: {error}")


def _parts(rows: Sequence[Row], count: int, images: Mapping[tuple[str, str], np.ndarray]) -> list[Part]:
    shown = f"{number(len(rows))} of {number(count)} are shown." if len(rows) < count else f"{number(count)} in all."
    groups, captions = [], []
    for name, _, distance, source, original in rows:
        keys = (WITHIN, name), (source, original)
        groups.append([picture(images[key], key[1], enlarge_to=96) for key in keys if key in images])
        of = original if source == WITHIN else f"{original} ({source})"
        captions.append((f"distance {number(distance)}", name, f"copy of {of}"))
    return [Text(f"{shown} The dropped image is on the left."), Pairs(groups, captions)]


def _read(inputs: Inputs, references: References, rows: Sequence[Row]) -> dict[tuple[str, str], np.ndarray]:
    """Return {(source, name): pixels} of the images in these rows. WITHIN is the source of the images that were prepared."""
    sources: dict[str, NamedImages] = {WITHIN: inputs, **references.sources}
    names: dict[str, set[str]] = {source: set() for source in sources}
    for name, _, _, source, original in rows:
        names[WITHIN].add(name)
        names[source].add(original)
    images = {}
    for source, wanted in names.items():
        opened = sources[source]
        numbers = (i for i in range(len(opened) if wanted else 0) if opened.name(i) in wanted)
        for i, data, labels in opened.read(sorted(numbers)):
            images[source, opened.name(i)] = decode_input(data, labels, max(labels, default=0) + 1)
    return images
