"""What `prepare --drop-near-duplicates-of` and `-within` find, and how long it takes: `python -m benchmarks.near_duplicates`.

Recall: of copies made of photographs in the ways of COPIES, the share that is taken for a copy of its own original; also of the
same photographs at 32 x 32 pixels, as CIFAR has them. False positives: of pairs of different pictures, those taken for copies.

What ships with the package is two photographs, cut here into parts that do not overlap, and drawings: letters, logos on white,
gradients, small things before a plain ground. That shows which changes the search bears, and that different pictures of like
texture are kept apart. It cannot show how often, among millions, two photographs look alike: for that give your own with
`--source`, in which no two should be of the same scene; what is taken for a copy is named.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from threadpoolctl import threadpool_limits

from mixer_jax import app
from mixer_jax.data.images.decode import decode
from mixer_jax.data.images.resize import resize, resize_large
from mixer_jax.data.sources.glyph_drawing import draw
from mixer_jax.preparation.inputs import MAX_PIXELS
from mixer_jax.preparation.listing import list_files
from mixer_jax.preparation.near_duplicates.fingerprint import SIDE, fingerprint_image
from mixer_jax.preparation.near_duplicates.index import Index
from mixer_jax.preparation.near_duplicates.within import find_pairs
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded

PART_SIDE, LONGER_SIDE = 96, 384  # pixels of a part of a photograph, before and after it is enlarged
CROPPED_AT_RANDOM = (0.03, 0.05, 0.08, 0.1, 0.12)  # at most, each side by itself
SMALL = 32  # pixels
DRAWINGS = 600  # letters and logos; half as many gradients and things
IMAGENET_21K = 14_200_000  # images

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


def shifted(right: float, down: float) -> Callable[[Image], Image]:
    """By shares of the width and of the height; the pixels at the border are repeated."""

    def shift(image: Image) -> Image:
        height, width = image.shape[:2]
        x, y = round(width * right), round(height * down)
        return cv2.copyMakeBorder(image, y, 0, x, 0, cv2.BORDER_REPLICATE)[:height, :width]

    return shift


def saturated(factor: float) -> Callable[[Image], Image]:
    def saturate(image: Image) -> Image:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=factor)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    return saturate


def contrasted(factor: float, brightness: float) -> Callable[[Image], Image]:
    return lambda image: np.clip(image.astype(np.float32) * factor + brightness, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[Image], Image]] = {
    **{f"JPEG of quality {quality}": recoded(quality) for quality in (90, 75, 50, 30)},
    **{f"{scale} times the size": resized(scale) for scale in (0.25, 0.5, 0.75, 1.5, 2)},
    "longer side 256": lambda image: resize_large(image, 256),
    "224 x 224": lambda image: resize(image, 224, 224),
    **{f"cropped by {percent} % at each side": cropped(*[percent / 100] * 4) for percent in (2, 5, 8, 10, 12, 20)},
    **{f"cropped by {percent} % at the left": cropped(0, 0, percent / 100, 0) for percent in (5, 12)},
    **{f"cropped by {percent} % at the top and the left": cropped(percent / 100, 0, percent / 100, 0) for percent in (5, 10, 12)},
    **{f"shifted by {percent} % to the right and down": shifted(percent / 100, percent / 100) for percent in (3, 6, 9, 12)},
    "flipped": lambda image: image[:, ::-1],
    "flipped, cropped by 5 %, half the size": lambda image: resized(1 / 2)(cropped(0.05, 0.05, 0.05, 0.05)(image[:, ::-1])),
    "brighter by 40 levels": contrasted(1, 40),
    "darker by 40 levels": contrasted(1, -40),
    "half the contrast": contrasted(0.5, 60),
    "1.5 times the contrast": contrasted(1.5, -60),
    "half the saturation": saturated(0.5),
    "twice the saturation": saturated(2),
    "gray": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
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
    small = {name: cv2.resize(image, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for name, image in photographs.items()}
    with threadpool_limits(1, "blas"):
        return {
            "photographs": source or "parts of two photographs, enlarged",
            "images": len(photographs),
            "recall_percent": _recalls(list(photographs.values())),
            f"recall_percent_at_{SMALL}_pixels": _recalls(list(small.values())),
            "false_positives": {
                "photographs": _false_positives(photographs),
                f"photographs at {SMALL} pixels": _false_positives(small),
                "drawings": _false_positives(_drawings()),
            },
            "cpu_ms_per_image": {
                "decode": _cpu_ms(lambda data: decode(data, MAX_PIXELS), list(map(encoded, photographs.values()))),
                "fingerprint": _cpu_ms(fingerprint_image, list(photographs.values())),
            },
            "matching": _matching(num_images, num_references),
            "within": _within(num_images),
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


def _recalls(originals: list[Image]) -> dict:
    """Return by the way of copying the percentage of copies, encoded as JPEG, that are found; plain originals are left out."""
    originals = [image for image in originals if fingerprint_image(image) is not None]
    index, rng = _index(originals), np.random.default_rng(0)
    recall = {kind: _recall(index, [change(image) for image in originals]) for kind, change in COPIES.items()}
    for most in CROPPED_AT_RANDOM:
        copies = [cropped(*rng.uniform(0, most, 4))(image) for image in originals]
        recall[f"cropped by up to {100 * most:.0f} % at each side"] = _recall(index, copies)
    cut = _index([cropped(0.05, 0.05, 0.05, 0.05)(image) for image in originals])
    return {"originals": len(originals)} | recall | {"the reference cropped by 5 %": _recall(cut, originals)}


def _index(originals: list[Image]) -> Index:
    return Index([], list(map(fingerprint_image, originals)))


def _recall(index: Index, copies: list[Image]) -> float:
    """Return the percentage of the copies, encoded as JPEG, that are taken for copies of the reference of the same number."""
    fingerprints = [fingerprint_image(decode(encoded(copy), MAX_PIXELS)) for copy in copies]
    matches = index.find([b""] * len(copies), fingerprints)
    return round(100 * np.mean([match is not None and match.number == number for number, match in enumerate(matches)]), 1)


def _false_positives(pictures: dict[str, Image]) -> dict:
    """Return what is found when each picture is compared with each other one."""
    thumbnails = {name: thumbnail for name, image in pictures.items() if (thumbnail := fingerprint_image(image)) is not None}
    names, stacked = list(thumbnails), np.array(list(thumbnails.values()), np.uint8).reshape(-1, SIDE, SIDE)
    with ThreadPoolExecutor() as pool:
        later, earlier, distance = find_pairs(stacked, PreparationSpec.near_duplicate_correlation, pool)
    pairs = [[float(d), names[i], names[j]] for i, j, d in zip(later, earlier, distance, strict=True)]
    counts = {"pictures": len(pictures), "compared_by_bytes_alone": len(pictures) - len(names)}
    return counts | {"pairs": len(names) * (len(names) - 1) // 2, "taken_for_copies": len(pairs), "which": sorted(pairs)}


def _drawings() -> dict[str, Image]:
    """Return pictures that are mostly flat: letters, logos on white, gradients, and a small thing before a ground with noise."""
    rng, pictures = np.random.default_rng(0), {}
    for number in range(DRAWINGS):
        pictures[f"letter {number}"] = draw("ABCDEFGHIJKLMNOPQRSTUVWXYZ", rng)
        pictures[f"logo {number}"] = _with_shapes(np.full((200, 200, 3), 255, np.uint8), rng, 3)
        ramp = np.linspace(*rng.uniform(0, 255, 2), 200)[:, None, None] + rng.normal(0, rng.uniform(0, 8), (200, 200, 3))
        ground = np.clip(ramp, 0, 255).astype(np.uint8)
        pictures[f"gradient {number}" if number % 2 else f"thing {number}"] = _with_shapes(ground, rng, 1 - number % 2)
    return pictures


def _with_shapes(image: Image, rng: np.random.Generator, count: int) -> Image:
    for _ in range(count):
        center, size = tuple(map(int, rng.integers(60, 140, 2))), tuple(map(int, rng.integers(10, 60, 2)))
        color = tuple(map(int, rng.integers(0, 200, 3)))
        if rng.random() < 0.5:
            cv2.ellipse(image, center, size, float(rng.uniform(0, 180)), 0, 360, color, -1)
        else:
            cv2.rectangle(image, center, (center[0] + size[0], center[1] + size[1]), color, -1)
    return image


def _cpu_ms(function: Callable, arguments: list) -> float:
    """Return the milliseconds of CPU of a call."""
    start = time.process_time()
    for argument in arguments:
        function(argument)
    return round(1e3 * (time.process_time() - start) / len(arguments), 3)


def _noise(count: int, seed: int) -> np.ndarray:
    """Return thumbnails, uint8 [count, SIDE, SIDE], of noise with the spectrum of photographs: amplitudes fall with frequency."""
    frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    weights = 1 / np.maximum(frequencies, 1 / SIDE)
    white = np.random.default_rng(seed).standard_normal((count, SIDE, SIDE), np.float32)
    pink = np.fft.irfft2(np.fft.rfft2(white) * weights)
    pink *= 50 / pink.std(axis=(1, 2), keepdims=True)
    return np.clip(pink + 128, 0, 255).astype(np.uint8)


def _matching(num_images: int, num_references: int) -> dict:
    """Return the seconds to compare noise with references, of which every tenth is among the images, mirrored."""
    references, images = _noise(num_references, 0), _noise(num_images, 1)
    planted = references[::10][: num_images // 2]
    images[: len(planted)] = planted[:, :, ::-1]
    index, start = Index([], list(references)), time.process_time()
    matches = [match for first in range(0, num_images, 2048) for match in index.nearest(images[first : first + 2048])]
    seconds = time.process_time() - start
    right = sum(match is not None and match.number == 10 * number for number, match in enumerate(matches[: len(planted)]))
    return {"images": num_images, "references": num_references, "cpu_seconds": round(seconds, 1)} | {
        "planted": len(planted), "planted_found": right, "others_found": sum(match is not None for match in matches) - right,
    }  # fmt: skip


def _within(num_images: int) -> dict:
    """Return the seconds to search noise for copies within, of which there is one, and an estimate for ImageNet-21k.

    The search of candidates grows as N^1.5, their alignment as N where each image has as many as are looked at.
    """
    thumbnails = _noise(num_images, 0)
    thumbnails[-1] = thumbnails[0, :, ::-1]
    start = time.process_time()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        later, _, _ = find_pairs(thumbnails, PreparationSpec.near_duplicate_correlation, pool)
    seconds = time.process_time() - start
    hours = seconds * (IMAGENET_21K / num_images) ** 1.5 / 3600
    return {"images": num_images, "cpu_seconds": round(seconds, 1), "pairs_found": len(later)} | {
        "cpu_hours_for_14_million_estimated": round(hours, 1)
    }


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
