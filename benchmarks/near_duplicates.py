"""What `prepare --drop-near-duplicates-of` finds and how long it takes: `python -m benchmarks.near_duplicates`.

Recall: of copies made of photographs in the ways of COPIES, the share that is taken for a copy of its own original. False
positives: of pairs of different photographs, those that are taken for copies.

What ships with the package is two photographs, cut here into parts that do not overlap. That shows which changes the hash bears,
and that different pictures of like texture are kept apart. It cannot show how often, among millions, two photographs look
alike: for that give your own with `--source`, in which no two should be of the same scene; what is taken for a copy is named.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from mixer_jax import app
from mixer_jax.data.images.decode import decode
from mixer_jax.data.images.resize import resize, resize_large
from mixer_jax.preparation.inputs import MAX_PIXELS
from mixer_jax.preparation.listing import list_files
from mixer_jax.preparation.near_duplicates.fingerprint import CROPS, Fingerprint, fingerprint_image, fingerprint_reference
from mixer_jax.preparation.near_duplicates.index import MAX_DISTANCE, Index
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded

PART_SIDE, LONGER_SIDE = 96, 384  # pixels of a part of a photograph, before and after it is enlarged
CROPPED_AT_RANDOM = (0.03, 0.05, 0.08, 0.1)  # at most, each side by itself
PLANTED = 1000  # copies among the random hashes that are matched

Image = np.ndarray  # uint8 [h, w, 3]


def encoded(image: Image, quality: int = 90) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")


def recoded(quality: int) -> Callable[[Image], Image]:
    return lambda image: decode(encoded(image, quality), MAX_PIXELS)


def resized(scale: float) -> Callable[[Image], Image]:
    return lambda image: cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def cropped(top: float, bottom: float, left: float, right: float) -> Callable[[Image], Image]:
    """By shares of the height and of the width."""

    def crop(image: Image) -> Image:
        height, width = image.shape[:2]
        return image[round(height * top) : round(height * (1 - bottom)), round(width * left) : round(width * (1 - right))]

    return crop


def turned(degrees: float) -> Callable[[Image], Image]:
    def turn(image: Image) -> Image:
        height, width = image.shape[:2]
        return cv2.warpAffine(image, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1), (width, height))

    return turn


COPIES: dict[str, Callable[[Image], Image]] = {
    "JPEG of quality 75": recoded(75),
    "JPEG of quality 50": recoded(50),
    "JPEG of quality 30": recoded(30),
    "half the size": resized(1 / 2),
    "a quarter of the size": resized(1 / 4),
    "longer side 256": lambda image: resize_large(image, 256),
    "224 x 224": lambda image: resize(image, 224, 224),
    "cropped by 2 % at each side": cropped(0.02, 0.02, 0.02, 0.02),
    "cropped by 5 % at each side": cropped(0.05, 0.05, 0.05, 0.05),
    "cropped by 10 % at each side": cropped(0.1, 0.1, 0.1, 0.1),
    "cropped by 20 % at each side": cropped(0.2, 0.2, 0.2, 0.2),
    "cropped by 5 % at the left": cropped(0, 0, 0.05, 0),
    "cropped by 5 % at the top and the left": cropped(0.05, 0, 0.05, 0),
    "cropped by 10 % at the top and the left": cropped(0.1, 0, 0.1, 0),
    "flipped": lambda image: image[:, ::-1],
    "flipped, cropped by 5 %, half the size": lambda image: resized(1 / 2)(cropped(0.05, 0.05, 0.05, 0.05)(image[:, ::-1])),
    "brighter, more contrast": lambda image: cv2.convertScaleAbs(image, alpha=1.2, beta=10),
    "grey": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "turned by 2 degrees": turned(2),
    "turned by 10 degrees": turned(10),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.near_duplicates", description=__doc__)
    parser.add_argument("--source", default="", metavar="KIND:PATH", help="photographs to try, in place of those that ship")
    parser.add_argument("--images", type=bounded("in [1, 2^30]"), default=100_000, help="to match, in the measurement of speed")
    parser.add_argument("--references", type=bounded("in [1, 2^30]"), default=50_000, help="to match them with")
    parser.add_argument("--json", action="store_true", help="one line of JSON, for programs")
    parser.set_defaults(tool=print_benchmark)
    return parser


def print_benchmark(arguments: argparse.Namespace) -> None:
    """Print the figures."""
    print_figures(benchmark_duplicates(arguments.source, arguments.images, arguments.references), arguments.json)


def benchmark_duplicates(source: str, num_images: int, num_references: int) -> dict:
    """Return recall and false positives on the photographs of `source`, KIND:PATH, or those that ship, and the time to match."""
    photographs = _source_images(source) if source else _parts()
    originals = {name: image for name, image in photographs.items() if fingerprint_image(image) is not None}
    pictures, names = list(originals.values()), list(originals)
    index, rng = _index(pictures), np.random.default_rng(0)
    recall = {kind: _recall(index, [change(image) for image in pictures]) for kind, change in COPIES.items()}
    for most in CROPPED_AT_RANDOM:
        copies = [cropped(*rng.uniform(0, most, 4))(image) for image in pictures]
        recall[f"cropped by up to {100 * most:.0f} % at each side"] = _recall(index, copies)
    smaller = _index([cropped(0.05, 0.05, 0.05, 0.05)(image) for image in pictures])
    files = [encoded(image) for image in pictures]
    return {
        "photographs": source or "parts of two photographs, enlarged",
        "images": len(photographs),
        "too_plain_to_hash": len(photographs) - len(pictures),
        "recall_percent": recall | {"the reference cropped by 5 %": _recall(smaller, pictures)},
        "false_positives": _false_positives(pictures, names),
        "cpu_ms_per_image": {
            "decode": _cpu_ms(lambda data: decode(data, MAX_PIXELS), files),
            "fingerprint": _cpu_ms(fingerprint_image, pictures),
            "fingerprint of a reference": _cpu_ms(fingerprint_reference, pictures),
        },
        "matching": _matching(num_images, num_references, len(os.sched_getaffinity(0))),
    }


def _source_images(source: str) -> dict[str, Image]:
    kind, _, path = source.partition(":")
    files, _ = list_files(kind, Path(path).expanduser(), "")
    return {files.names[number]: decode(data, MAX_PIXELS, strict=False) for number, data in files.read(range(len(files.names)))}


def _parts() -> dict[str, Image]:
    from sklearn.datasets import load_sample_images  # heavy, and only this needs it

    parts = {}
    for number, photograph in enumerate(load_sample_images().images):
        height, width = (side // PART_SIDE * PART_SIDE for side in photograph.shape[:2])
        for top in range(0, height, PART_SIDE):
            for left in range(0, width, PART_SIDE):
                part = photograph[top : top + PART_SIDE, left : left + PART_SIDE]
                parts[f"photograph {number}, {top}, {left}"] = resize(part, LONGER_SIDE, LONGER_SIDE)
    return parts


def _index(originals: list[Image]) -> Index:
    return Index([hashlib.sha256(encoded(image)).digest() for image in originals], list(map(fingerprint_reference, originals)))


def _recall(index: Index, copies: list[Image]) -> float:
    """Return the percentage of the copies, encoded as JPEG, that are taken for copies of the reference of the same number."""
    files = [encoded(copy) for copy in copies]
    matches = [index.find(data, decode(data, MAX_PIXELS)) for data in files]
    return round(100 * np.mean([match is not None and match.number == number for number, match in enumerate(matches)]), 1)


def _false_positives(pictures: list[Image], names: list[str]) -> dict:
    """Return what is found when every second picture is compared with those between, and these with them."""
    pairs, nearest, copies = 0, 256, []
    for first in (0, 1):
        index, others = _index(pictures[first::2]), pictures[1 - first :: 2]
        for name, picture in zip(names[1 - first :: 2], others, strict=True):
            wanted = fingerprint_image(picture)
            nearest = min(nearest, int(index.distances(wanted).min()))
            if match := index.nearest(wanted):
                copies.append([match.distance, name, names[first::2][match.number]])
        pairs += len(pictures[first::2]) * len(others)
    return {"pairs": pairs, "taken_for_copies": len(copies), "which": sorted(copies), "nearest_distance": nearest}


def _cpu_ms(function: Callable, arguments: list) -> float:
    """Return the milliseconds of CPU of a call."""
    start = time.process_time()
    for argument in arguments:
        function(argument)
    return round(1e3 * (time.process_time() - start) / len(arguments), 3)


def _matching(num_images: int, num_references: int, threads: int) -> dict:
    """Return the seconds to compare random fingerprints with references, among them copies with MAX_DISTANCE bits flipped."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, (num_references, 2 * len(CROPS), 4), np.uint64)
    areas = rng.permuted(np.tile(np.arange(256, dtype=np.uint8), (num_references, 1)), axis=1)
    index = Index([], [Fingerprint(own, np.tile(area, (len(own), 1))) for own, area in zip(bits, areas, strict=True)])
    wanted = [Fingerprint(own, areas[0]) for own in rng.integers(0, 2**64, (num_images, 4), np.uint64)]
    planted = {int(number): int(rng.integers(num_references)) for number in rng.permutation(num_images)[:PLANTED]}
    for number, reference in planted.items():
        flipped = np.zeros(256, np.uint8)
        flipped[rng.permutation(256)[:MAX_DISTANCE]] = 1
        own = bits[reference, rng.integers(2 * len(CROPS))] ^ np.packbits(flipped).view(np.uint64)
        wanted[number] = Fingerprint(own, areas[reference])
    start, cpu_start = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        matches = list(pool.map(index.nearest, wanted))
    figures = {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(time.process_time() - cpu_start, 1)}
    right = sum(matches[number] is not None and matches[number].number == reference for number, reference in planted.items())
    return {"images": num_images, "references": num_references, "threads": threads, **figures} | {
        "planted": len(planted), "planted_found": right, "others_found": sum(match is not None for match in matches) - right,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
