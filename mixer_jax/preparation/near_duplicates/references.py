"""The references: images, such as a test set's, whose copies are left out (`prepare --drop-near-duplicates-of`).

index.py decides what a copy is. References are named as in `--from` (inputs.py), except that tfds: and cifar: are not supported,
or as records:DIR/SPLIT for a split that `prepare` made. Their classes do not matter. They are read and fingerprinted whenever
shards have to be made, also when a preparation is continued. This takes a few milliseconds of CPU time for each reference.

Whether an image is left out depends only on the image and the references, not on its shard or thread. The row of a shard in the
manifest lists the copies that were left out of it. DIR/SPLIT/duplicates.tsv lists all of them: exact copies first, then near
copies in the order of their distances, the smallest first. pairs_page.py shows them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mixer_jax.data.images.decode import UnreadableImageError, decode
from mixer_jax.data.sources.class_tree import report_left_out
from mixer_jax.data.sources.manifest import DUPLICATES, UNFINISHED, Shard, split_folders
from mixer_jax.data.sources.shards import ShardReader
from mixer_jax.errors import UserError
from mixer_jax.preparation.inputs import MAX_PIXELS, Inputs, ListedInputs
from mixer_jax.preparation.listing import LISTERS, list_files
from mixer_jax.preparation.near_duplicates.fingerprint import fingerprint_image
from mixer_jax.preparation.near_duplicates.index import Index
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.records import Progress
from mixer_jax.storage import write_whole

CHUNK = 64  # images that a thread fingerprints in one task
# The method of finding near copies, which the manifest names. Method 1 was a perceptual hash. Manifests of that time have a list
# of its two thresholds instead of a number.
METHOD = 2
WITHIN = "within"  # stands in place of a source for copies of earlier images of the split itself


class RecordsInputs:
    """A split that `prepare` made, with the methods of inputs.Inputs that references need."""

    def __init__(self, directory: Path):
        if directory not in (splits := split_folders(directory)):
            named = ", ".join(f"records:{split}" for split in splits)
            raise UserError(f"{directory} holds splits, which one is meant? Choose from {named}.")
        self._reader = ShardReader(directory, "full")

    def __len__(self) -> int:
        return len(self._reader)

    def name(self, number: int) -> str:
        """Return the name that an image had when the split was made."""
        return self._reader.read(number).name

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
        """Yield (number, bytes of the image file, labels)."""
        for number in numbers:
            entry = self._reader.read(number)
            yield number, entry.image, entry.labels

    def sha256(self) -> str:
        """Return a digest that changes if the records or their order change."""
        return self._reader.identity


class References:
    """All references, numbered consecutively in the order of their sources."""

    def __init__(self, spec: PreparationSpec, target: Path):
        """Open the sources. Raises UserError if one does not exist, or is the source or the split that is prepared."""
        self._inputs = {source: _open(source, spec, target) for source in spec.drop_near_duplicates_of}
        self._spec = spec
        self._index = Index([], [])

    @property
    def sources(self) -> dict[str, Inputs | RecordsInputs]:
        """The images of each source, by its name as in `--drop-near-duplicates-of`."""
        return dict(self._inputs)

    def manifest_fields(self) -> dict:
        """Return the entries of a manifest about the search for copies: empty if no copies are searched."""
        spec = self._spec
        digests = {source: inputs.sha256() for source, inputs in self._inputs.items()}
        fields = ({"references": digests} if digests else {}) | ({"within": True} if spec.drop_near_duplicates_within else {})
        near = {"method": METHOD, "correlation": spec.near_duplicate_correlation, "detail": spec.near_duplicate_detail}
        return fields | {"near": near} if fields else {}

    def keep_earlier_method(self, made: dict, before: dict) -> None:
        """Keep the method of a split in `made` if it was begun with method 1 and can still be read.

        Method 1 had no options, so a split made with it can only be read if the thresholds are the defaults.

        Args:
            made: The entry `made` of the split to make, which is changed.
            before: The entry `made` of the split in the folder, or an empty dict if there is none.
        """
        spec = self._spec
        thresholds = spec.near_duplicate_correlation, spec.near_duplicate_detail
        used_method_1 = isinstance(before.get("near"), list) and not spec.drop_near_duplicates_within
        if used_method_1 and thresholds == (PreparationSpec.near_duplicate_correlation, PreparationSpec.near_duplicate_detail):
            made["near"] = before["near"]

    def hash_all(self, threads: int) -> None:
        """Hash and fingerprint all references, which `find` requires. Raises UserError if a reference cannot be read."""
        chunks = [
            (source, range(start, min(start + CHUNK, len(inputs))))
            for source, inputs in self._inputs.items()
            for start in range(0, len(inputs), CHUNK)
        ]
        hashed, progress = [], Progress(sum(map(len, self._inputs.values())), 0, unit="reference")
        try:
            with ThreadPoolExecutor(threads) as pool:
                for hashed_chunk in pool.map(self._hash_chunk, chunks):
                    hashed += hashed_chunk
                    progress.update(len(hashed))
        finally:
            progress.close()
        self._index = Index(
            [digest for digest, _ in hashed],
            [fingerprint for _, fingerprint in hashed],
            self._spec.near_duplicate_correlation,
        )

    def _hash_chunk(self, chunk: tuple[str, range]) -> list[tuple[bytes, np.ndarray | None]]:
        """Return (SHA-256, fingerprint) of each image in a chunk, which is a source and the numbers of images in it."""
        source, numbers = chunk
        inputs, hashed = self._inputs[source], []
        for number, data, _ in inputs.read(numbers):
            try:
                if isinstance(data, UnreadableImageError):
                    raise data
                image = decode(data, MAX_PIXELS, strict=False)
            except UnreadableImageError as error:
                raise UserError(f"{source} cannot be compared with: {inputs.name(number)} is {error}. Take it out.") from error
            hashed.append((hashlib.sha256(data).digest(), fingerprint_image(image, self._spec.near_duplicate_detail)))
        return hashed

    def find(self, images: list[tuple[str, bytes, np.ndarray | None]]) -> list[list | None]:
        """Return, for each image, [name, kind, distance, source, name of the reference] if it is a copy, otherwise None.

        An image is given as (name, SHA-256 of its file, fingerprint).
        """
        matches = self._index.find([digest for _, digest, _ in images], [fingerprint for *_, fingerprint in images])
        return [
            match and [name, match.kind, match.distance, *self._locate(match.number)]
            for (name, *_), match in zip(images, matches, strict=True)
        ]

    def _locate(self, number: int) -> tuple[str, str]:
        """Return the source of a reference, and its name in this source."""
        for source, inputs in self._inputs.items():
            if number < len(inputs):
                return source, inputs.name(number)
            number -= len(inputs)
        raise IndexError(number)


def _open(source: str, spec: PreparationSpec, target: Path) -> Inputs | RecordsInputs:
    """Open the source of references, given as in `--drop-near-duplicates-of`."""
    kind, _, path = source.partition(":")
    path = Path(path).expanduser()
    if source == spec.source or (kind == "records" and path.resolve() == target.resolve()):
        raise UserError(f"--drop-near-duplicates-of {source}: that is what is prepared, and nothing would be left. Leave it out.")
    if kind == "records":
        return RecordsInputs(path)
    if kind not in LISTERS:
        raise UserError(
            f"--drop-near-duplicates-of {source}: it must be {', '.join(f'{name}:...' for name in LISTERS)} or "
            "records:DIR/SPLIT. Anything else is prepared first, such as --from tfds:NAME --split SPLIT."
        )
    files, _ = list_files(kind, path, "")
    report_left_out(source, files.tree.left_out)
    return ListedInputs(files, (), [()] * len(files.names))


def write_list(target: Path, shards: list[Shard]) -> None:
    """Write DIR/SPLIT/duplicates.tsv, which lists all copies that were left out."""
    dropped = [row for shard in shards for row in shard.duplicates]
    lines = sorted((kind, distance, name, source, reference) for name, kind, distance, source, reference in dropped)
    text = "".join("\t".join(map(str, line)) + "\n" for line in [("kind", "distance", "image", "of", "reference"), *lines])
    with write_whole(target / DUPLICATES, target / UNFINISHED) as temporary:
        temporary.write_text(text, encoding="utf-8")
