"""The search for copies within the split that is prepared (`prepare --drop-near-duplicates-within`).

Of images that are copies of each other, the first in the order of the input is kept. Each dropped image is listed with an earlier
image that it is a copy of, and with "within" in place of the source of a reference. That earlier image may itself have been
dropped as a copy of another. Copies of references are dropped before this search.

Drawings of a few strokes at 8 to 28 pixels, such as MNIST, must not be searched within. Different drawings of a digit, and even
drawings of different digits, can be laid over each other. With the default thresholds, this search would drop 1028 of the
1797 images of scikit-learn's digits, one of them as a copy of another digit (2026-11-30).

All images are read once more than without this search, because all fingerprints are computed before the first shard is made. They
are saved in files of CHUNK images under DIR/SPLIT/.preparing, from which a killed preparation resumes. Then search.py proposes
pairs, in a time that grows as N^1.5. Each image needs about 0.4 kB of memory and 2 kB under .preparing/. The thumbnails are a
memory-mapped file, which the system keeps in memory as far as there is room.
"""

import contextlib
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.preparation.inputs import Inputs, decode_input
from mixer_jax.preparation.near_duplicates.alignment import Part
from mixer_jax.preparation.near_duplicates.fingerprint import SIDE, fingerprint_image
from mixer_jax.preparation.near_duplicates.index import distances, is_near
from mixer_jax.preparation.near_duplicates.references import WITHIN, References
from mixer_jax.preparation.near_duplicates.search import BATCH_SIZE, HIT, PARTS, Cells, describe, keep_best, search_part
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.records import Progress
from mixer_jax.storage import write_whole

CHUNK = 2048  # images in a file of fingerprints, and pairs that a thread aligns in one task


def find_duplicates(inputs: Inputs, references: References, spec: PreparationSpec, folder: Path, threads: int) -> dict[str, list]:
    """Return {name: row of the manifest} of the images that are copies of a reference or of an earlier image.

    Args:
        inputs: The images.
        references: The references, with which the images are compared first. Their `hash_all` must have been called.
        spec: The options, of which the thresholds are used.
        folder: The folder for unfinished files.
        threads: How many chunks of images or of pairs are processed at once.
    """
    starts = range(0, len(inputs), CHUNK)
    files = [folder / f"fingerprints-{start // CHUNK:06d}.npz" for start in starts]
    progress = Progress(len(inputs), 0, unit="fingerprint")
    with ThreadPoolExecutor(threads) as pool:

        def save_chunk(start: int, file: Path) -> int:
            if not file.exists():
                _save_fingerprints(inputs, references, spec, range(start, min(start + CHUNK, len(inputs))), file)
            return start + CHUNK

        try:
            for done in pool.map(save_chunk, starts, files):
                progress.update(min(done, len(inputs)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            progress.close()
        rows, numbers, exact, thumbnails = _read_fingerprints(files, folder / "thumbnails.npy")
        near = _near_duplicates(thumbnails, numbers, spec.near_duplicate_correlation, pool)
    for number, (kind, distance, original) in {**exact, **near}.items():
        rows[inputs.name(number)] = [inputs.name(number), kind, distance, WITHIN, inputs.name(original)]
    return rows


def _save_fingerprints(inputs: Inputs, references: References, spec: PreparationSpec, numbers: range, file: Path) -> None:
    """Write a file about the images with these numbers.

    It contains the rows of copies of references and, for the other images that can be read, numbers, digests and fingerprints.
    """
    read, images = [], []
    for number, data, labels in inputs.read(numbers):
        with contextlib.suppress(UserError):  # An unreadable image is reported when its shard is made.
            fingerprint = fingerprint_image(decode_input(data, labels, len(inputs.class_names)), spec.near_duplicate_detail)
            read.append(number)
            images.append((inputs.name(number), hashlib.sha256(data).digest(), fingerprint))
    rows = references.find(images)
    kept = [(number, *image[1:]) for number, image, row in zip(read, images, rows, strict=True) if row is None]
    thumbnails = [fingerprint for *_, fingerprint in kept if fingerprint is not None]
    with write_whole(file) as temporary, open(temporary, "wb") as opened:
        np.savez(
            opened,
            rows=json.dumps([row for row in rows if row is not None]),
            numbers=np.array([number for number, *_ in kept], np.int64),
            digests=np.frombuffer(b"".join(digest for _, digest, _ in kept), "V32"),
            detailed=np.array([fingerprint is not None for *_, fingerprint in kept], bool),
            thumbnails=np.array(thumbnails, np.uint8).reshape(-1, SIDE, SIDE),
        )


def _read_fingerprints(
    files: list[Path], thumbnails_file: Path
) -> tuple[dict[str, list], np.ndarray, dict[int, tuple], np.ndarray]:
    """Return what the files of fingerprints contain: (rows, numbers, exact copies, thumbnails).

    The rows are those of copies of references, by their names. The exact copies are {number: ("exact", 0, number of the first
    such image)}. The numbers, int64 [N], and thumbnails, uint8 [N, SIDE, SIDE], are those of the remaining images with a
    fingerprint. The thumbnails are memory-mapped from `thumbnails_file`, which this function writes.
    """
    rows: dict[str, list] = {}
    exact: dict[int, tuple] = {}
    first_of: dict[bytes, int] = {}
    unique = []
    for file in files:
        with np.load(file) as chunk:
            rows |= {row[0]: row for row in json.loads(str(chunk["rows"]))}
            for number, digest in zip(chunk["numbers"].tolist(), chunk["digests"].tolist(), strict=True):
                first = first_of.setdefault(bytes(digest), number)
                if first != number:
                    exact[number] = ("exact", 0, first)
            unique.append(np.array([n for n in chunk["numbers"][chunk["detailed"]].tolist() if n not in exact], np.int64))
    numbers = np.concatenate([np.empty(0, np.int64), *unique])
    thumbnails_file.unlink(missing_ok=True)
    if not len(numbers):
        return rows, numbers, exact, np.empty((0, SIDE, SIDE), np.uint8)
    thumbnails = np.lib.format.open_memmap(thumbnails_file, "w+", np.uint8, (len(numbers), SIDE, SIDE))
    start = 0
    for file, numbers_in_file in zip(files, unique, strict=True):
        end = start + len(numbers_in_file)
        with np.load(file) as chunk:
            thumbnails[start:end] = chunk["thumbnails"][np.isin(chunk["numbers"][chunk["detailed"]], numbers_in_file)]
        start = end
    return rows, numbers, exact, thumbnails


def _near_duplicates(
    thumbnails: np.ndarray, numbers: np.ndarray, min_correlation: float, pool: ThreadPoolExecutor
) -> dict[int, tuple]:
    """Return {number: ("near", distance, number of an earlier image)} of the images to drop.

    If very many images are copies of each other, an image has more copies than candidates that are aligned. The originals of
    dropped images are therefore compared again with each other until no more are dropped.

    Args:
        thumbnails: uint8 [N, SIDE, SIDE].
        numbers: The numbers of the images, int64 [N], in ascending order.
        min_correlation: The smallest correlation of copies.
        pool: The threads that search and align.
    """
    dropped: dict[int, tuple] = {}
    indices = np.arange(len(numbers))
    while len(indices) > 1:
        chosen = thumbnails if len(indices) == len(thumbnails) else thumbnails[indices]
        original_of = _drop_later(*find_pairs(chosen, min_correlation, pool))
        if not original_of:
            break
        for copy, (distance, original) in original_of.items():
            dropped[int(numbers[indices[copy]])] = ("near", distance, int(numbers[indices[original]]))
        indices = indices[sorted({original for _, original in original_of.values()})]
    return dropped


def _drop_later(later: np.ndarray, earlier: np.ndarray, distance: np.ndarray) -> dict[int, tuple[float, int]]:
    """Return {image: (distance, original)} of the images to drop, for the pairs of copies that `find_pairs` returns.

    The original is the nearest of the earlier images that are kept, and the first of equally near ones.
    """
    original_of: dict[int, tuple[float, int]] = {}
    for i in np.lexsort([earlier, distance, later]).tolist():
        image, other = int(later[i]), int(earlier[i])
        # The other image is earlier, so it is known whether it is dropped.
        if image not in original_of and other not in original_of:
            original_of[image] = (float(distance[i]), other)
    return original_of


def find_pairs(
    thumbnails: np.ndarray, min_correlation: float, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of near copies among thumbnails, uint8 [N, SIDE, SIDE].

    Returns:
        The indices of the later images, those of the earlier images, and their distances, [P] each. Each pair occurs once.
    """
    hits = np.concatenate([np.empty(0, HIT), *_candidates(thumbnails, pool)])
    later, earlier = np.maximum(hits["query"], hits["number"]), np.minimum(hits["query"], hits["number"])
    order = np.lexsort([hits["query"], hits["mirrored"], hits["alignment"], -hits["similarity"], earlier, later])
    is_new_pair = np.ones(len(order), bool)
    is_new_pair[1:] = (later[order[1:]] != later[order[:-1]]) | (earlier[order[1:]] != earlier[order[:-1]])
    order = order[is_new_pair]
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    measured = pool.map(lambda chunk: distances(hits[chunk], thumbnails, thumbnails), chunks)
    distance = np.concatenate([np.empty(0), *measured])
    near = is_near(distance, min_correlation)
    return later[order][near], earlier[order][near], distance[near]


def _candidates(thumbnails: np.ndarray, pool: ThreadPoolExecutor) -> list[np.ndarray]:
    """Return the pairs of different thumbnails that may be copies, as arrays of HIT for consecutive batches of queries.

    The descriptors of only one part are held in memory at a time.
    """
    starts = range(0, len(thumbnails), BATCH_SIZE)
    hits_of_batch = [np.empty(0, HIT) for _ in starts]
    for part in PARTS:
        cells = Cells(describe(thumbnails, part))

        def search(start: int, hits: np.ndarray, cells: Cells = cells, part: Part = part) -> np.ndarray:
            for new_hits in search_part(cells, part, thumbnails[start : start + BATCH_SIZE]):
                hits = keep_best(np.concatenate([hits, _without_self(new_hits, start)]))
            return hits

        hits_of_batch = list(pool.map(search, starts, hits_of_batch))
    return hits_of_batch


def _without_self(hits: np.ndarray, start: int) -> np.ndarray:
    """Return the hits of a batch of queries that begins at `start`, without those of a thumbnail with itself.

    "query" becomes the index among all thumbnails.
    """
    hits["query"] += np.uint32(start)
    return hits[hits["query"] != hits["number"]]
