"""Copies within the split that is prepared (`prepare --drop-near-duplicates-within`): of such images the first one is kept.

First means: in the order of the input. An image is dropped if it is a copy of an earlier one that is kept; the pair is listed as
one of a reference is, with `of` being "within". Images that are copies of references are dropped before.

The source is read once more than without: all fingerprints come first, in files of CHUNK images under DIR/SPLIT/.preparing, with
which a preparation that was killed goes on. Then search.py proposes pairs, in time that grows as N^1.5. Memory holds about 0.4 kB
an image, and .preparing/ 2 kB; the thumbnails are a mapped file, of which memory holds what it has room for.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.preparation.inputs import Inputs, decode_input
from mixer_jax.preparation.near_duplicates.fingerprint import SIDE, fingerprint_image
from mixer_jax.preparation.near_duplicates.index import distances, is_near
from mixer_jax.preparation.near_duplicates.references import WITHIN, References
from mixer_jax.preparation.near_duplicates.search import HIT, PARTS, ROWS, Cells, best, describe, search_part
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.records import Progress
from mixer_jax.storage import write_whole

CHUNK = 2048  # images of a file of fingerprints


def find_duplicates(inputs: Inputs, references: References, spec: PreparationSpec, folder: Path, threads: int) -> dict[str, list]:
    """Return, by its name, the row of each image that is a copy of a reference or of an earlier image.

    Args:
        inputs: The images.
        references: What they are compared with first; it must have been hashed.
        spec: Has the thresholds.
        folder: Where what is not finished lies.
        threads: How many images, or pairs, are worked on at once.
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
        rows, numbers, exact, thumbnails = _gather(files, folder / "thumbnails.npy")
        near = _near_duplicates(thumbnails, numbers, spec.near_duplicate_correlation, pool)
    for number, (kind, distance, kept) in {**exact, **near}.items():
        rows[inputs.name(number)] = [inputs.name(number), kind, distance, WITHIN, inputs.name(kept)]
    return rows


def _save_fingerprints(inputs: Inputs, references: References, spec: PreparationSpec, numbers: range, file: Path) -> None:
    """Write the numbers, digests and fingerprints of the images that can be read, and the rows of copies of references."""
    read, images = [], []
    for number, data, labels in inputs.read(numbers):
        with contextlib.suppress(UserError):  # what cannot be read is reported when its shard is made
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


def _gather(files: list[Path], memory: Path) -> tuple[dict[str, list], np.ndarray, dict[int, tuple], np.ndarray]:
    """Return the rows of copies of references, and of the other images without exact copies the numbers and thumbnails.

    Third are the exact copies: (kind, distance, number of the first one) by number.
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
    memory.unlink(missing_ok=True)
    if not len(numbers):
        return rows, numbers, exact, np.empty((0, SIDE, SIDE), np.uint8)
    thumbnails = np.lib.format.open_memmap(memory, "w+", np.uint8, (len(numbers), SIDE, SIDE))
    start = 0
    for file, own in zip(files, unique, strict=True):
        with np.load(file) as chunk:
            thumbnails[start : start + len(own)] = chunk["thumbnails"][np.isin(chunk["numbers"][chunk["detailed"]], own)]
        start += len(own)
    return rows, numbers, exact, thumbnails


def _near_duplicates(
    thumbnails: np.ndarray, numbers: np.ndarray, min_correlation: float, pool: ThreadPoolExecutor
) -> dict[int, tuple]:
    """Return ("near", distance, number of the image that is kept) by the number of each image to drop.

    Of many images that are all alike, each has more candidates than are looked at. So those that were kept are compared again
    among themselves until no more are dropped.
    """
    dropped: dict[int, tuple] = {}
    rows = np.arange(len(numbers))
    while len(rows) > 1:
        chosen = thumbnails if len(rows) == len(thumbnails) else thumbnails[rows]
        found = _drop_later(*find_pairs(chosen, min_correlation, pool))
        if not found:
            break
        dropped |= {int(numbers[rows[i]]): ("near", distance, int(numbers[rows[kept]])) for i, (distance, kept) in found.items()}
        rows = rows[sorted({kept for _, kept in found.values()})]
    return dropped


def _drop_later(later: np.ndarray, earlier: np.ndarray, distance: np.ndarray) -> dict[int, tuple[float, int]]:
    """Return (distance, kept image) of each image to drop: the nearest kept earlier one, then the first."""
    found: dict[int, tuple[float, int]] = {}
    for i in np.lexsort([earlier, distance, later]).tolist():
        image, other = int(later[i]), int(earlier[i])
        if image not in found and other not in found:  # the others' fate is settled: they are earlier
            found[image] = (float(distance[i]), other)
    return found


def find_pairs(
    thumbnails: np.ndarray, min_correlation: float, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the near pairs among uint8 [N, SIDE, SIDE]: the number of the later image, of the earlier one, their distance."""
    hits = np.concatenate([np.empty(0, HIT), *_candidates(thumbnails, pool)])
    later, earlier = np.maximum(hits["query"], hits["number"]), np.minimum(hits["query"], hits["number"])
    order = np.lexsort([hits["query"], hits["mirrored"], hits["alignment"], -hits["alikeness"], earlier, later])
    new = np.ones(len(order), bool)
    new[1:] = (later[order[1:]] != later[order[:-1]]) | (earlier[order[1:]] != earlier[order[:-1]])
    order = order[new]
    pieces = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    measured = pool.map(lambda piece: distances(hits[piece], thumbnails, thumbnails), pieces)
    distance = np.concatenate([np.empty(0), *measured])
    near = is_near(distance, min_correlation)
    return later[order][near], earlier[order][near], distance[near]


def _candidates(thumbnails: np.ndarray, pool: ThreadPoolExecutor) -> list[np.ndarray]:
    """Return HIT arrays, in which query and number are different. One part at a time is held in memory."""
    starts = range(0, len(thumbnails), ROWS)
    found = [np.empty(0, HIT) for _ in starts]
    for part in PARTS:
        cells = Cells(describe(thumbnails, part))

        def search(start: int, so_far: np.ndarray, cells: Cells = cells, part=part) -> np.ndarray:
            for hits in _others(search_part(cells, part, thumbnails[start : start + ROWS]), start):
                so_far = best(np.concatenate([so_far, hits]))
            return so_far

        found = list(pool.map(search, starts, found))
    return found


def _others(found: Iterator[np.ndarray], start: int) -> Iterator[np.ndarray]:
    """Yield hits with the queries' numbers from `start` on, without those of an image with itself."""
    for hits in found:
        hits["query"] += np.uint32(start)
        yield hits[hits["query"] != hits["number"]]
