"""Measures what `prepare --drop-near-duplicates-of` and `-within` find, and their time: `python -m benchmarks.near_duplicates`.

Recall is the percentage of copies that are taken for copies of their own originals. The copies are made from photographs in the
ways that COPIES lists, and also from the same photographs at 32 x 32 pixels, the size of CIFAR's images. False positives are
pairs of different pictures that are taken for copies.

Without `--source`, the photographs are the two that scikit-learn contains, cut into parts that do not overlap. The drawings are
letters, logos on white, gradients, and small objects on a plain background. These pictures show which changes of a copy the
search tolerates, and whether different pictures with similar textures are kept apart. They cannot show how often two of millions
of photographs look alike. For that, name your own photographs with `--source`. No two of them should show the same scene. The
benchmark names the pairs that are taken for copies.
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
CROPPED_AT_RANDOM = (0.03, 0.05, 0.08, 0.1, 0.12)  # the largest fractions by which each side is cropped, at random
SMALL = 32  # pixels
DRAWINGS = 600  # the number of letters and of logos; there are half as many gradients and objects
IMAGENET_21K = 14_200_000  # images

Image = np.ndarray
"""uint8 [h, w, 3]"""


def encode(image: Image, quality: int = 90) -> bytes:
    """Return the image as a JPEG file."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")


def recode(quality: int) -> Callable[[Image], Image]:
    """Return a function that encodes an image as JPEG and decodes it."""
    return lambda image: decode(encode(image, quality), MAX_PIXELS)


def scale_by(scale: float) -> Callable[[Image], Image]:
    """Return a function that resizes an image."""
    return lambda image: cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def crop_by(top: float, bottom: float, left: float, right: float) -> Callable[[Image], Image]:
    """Return a function that crops an image. The arguments are fractions of its height and of its width."""

    def crop(image: Image) -> Image:
        height, width = image.shape[:2]
        return image[round(height * top) : round(height * (1 - bottom)), round(width * left) : round(width * (1 - right))]

    return crop


def rotate_by(degrees: float) -> Callable[[Image], Image]:
    """Return a function that rotates an image about its center."""

    def rotate(image: Image) -> Image:
        height, width = image.shape[:2]
        return cv2.warpAffine(image, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1), (width, height))

    return rotate


def shift_by(right: float, down: float) -> Callable[[Image], Image]:
    """Return a function that shifts the content of an image, and repeats the pixels at the border.

    The arguments are fractions of its width and of its height.
    """

    def shift(image: Image) -> Image:
        height, width = image.shape[:2]
        x, y = round(width * right), round(height * down)
        return cv2.copyMakeBorder(image, y, 0, x, 0, cv2.BORDER_REPLICATE)[:height, :width]

    return shift


def saturate_by(factor: float) -> Callable[[Image], Image]:
    """Return a function that multiplies the saturation of an image."""

    def saturate(image: Image) -> Image:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=factor)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    return saturate


def change_contrast(factor: float, brightness: float) -> Callable[[Image], Image]:
    """Return a function that multiplies the levels of an image by `factor` and adds `brightness`."""
    return lambda image: np.clip(image.astype(np.float32) * factor + brightness, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[Image], Image]] = {
    **{f"JPEG of quality {quality}": recode(quality) for quality in (90, 75, 50, 30)},
    **{f"{scale} times the size": scale_by(scale) for scale in (0.25, 0.5, 0.75, 1.5, 2)},
    "longer side 256": lambda image: resize_large(image, 256),
    "224 x 224": lambda image: resize(image, 224, 224),
    **{f"cropped by {percent} % at each side": crop_by(*[percent / 100] * 4) for percent in (2, 5, 8, 10, 12, 20)},
    **{f"cropped by {percent} % at the left": crop_by(0, 0, percent / 100, 0) for percent in (5, 12)},
    **{f"cropped by {percent} % at the top and the left": crop_by(percent / 100, 0, percent / 100, 0) for percent in (5, 10, 12)},
    **{f"shifted by {percent} % to the right and down": shift_by(percent / 100, percent / 100) for percent in (3, 6, 9, 12)},
    "flipped": lambda image: image[:, ::-1],
    "flipped, cropped by 5 %, half the size": lambda image: scale_by(1 / 2)(crop_by(0.05, 0.05, 0.05, 0.05)(image[:, ::-1])),
    "brighter by 40 levels": change_contrast(1, 40),
    "darker by 40 levels": change_contrast(1, -40),
    "half the contrast": change_contrast(0.5, 60),
    "1.5 times the contrast": change_contrast(1.5, -60),
    "half the saturation": saturate_by(0.5),
    "twice the saturation": saturate_by(2),
    "gray": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "turned by 2 degrees": rotate_by(2),
    "turned by 10 degrees": rotate_by(10),
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.near_duplicates", description=__doc__)
    parser.add_argument("--source", default="", metavar="KIND:PATH", help="photographs to use instead of those of scikit-learn")
    parser.add_argument(
        "--images", type=bounded("in [1, 2^30]"), default=100_000, help="number of images in the measurement of speed"
    )
    parser.add_argument(
        "--references",
        type=bounded("in [1, 2^30]"),
        default=50_000,
        help="number of references with which these images are compared",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.set_defaults(tool=print_benchmark)
    return parser


def print_benchmark(arguments: argparse.Namespace) -> None:
    """Print the figures that the arguments ask for."""
    print_figures(benchmark_duplicates(arguments.source, arguments.images, arguments.references), arguments.json)


def benchmark_duplicates(source: str, num_images: int, num_references: int) -> dict:
    """Return recall, false positives and times.

    Args:
        source: KIND:PATH of photographs, as in `prepare --from`; empty for those of scikit-learn.
        num_images: The number of images in the measurements of speed.
        num_references: The number of references with which they are compared.
    """
    photographs = _read_images(source) if source else _shipped_parts()
    small = {name: cv2.resize(image, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for name, image in photographs.items()}
    with threadpool_limits(1, "blas"):
        return {
            "photographs": source or "parts of two photographs, enlarged",
            "images": len(photographs),
            "recall_percent": _measure_recalls(list(photographs.values())),
            f"recall_percent_at_{SMALL}_pixels": _measure_recalls(list(small.values())),
            "false_positives": {
                "photographs": _measure_false_positives(photographs),
                f"photographs at {SMALL} pixels": _measure_false_positives(small),
                "drawings": _measure_false_positives(_make_drawings()),
            },
            "cpu_ms_per_image": {
                "decode": _measure_cpu_ms(lambda data: decode(data, MAX_PIXELS), list(map(encode, photographs.values()))),
                "fingerprint": _measure_cpu_ms(fingerprint_image, list(photographs.values())),
            },
            "matching": _measure_matching(num_images, num_references),
            "within": _measure_within(num_images),
        }


def _read_images(source: str) -> dict[str, Image]:
    """Return the images of a source by their names."""
    kind, _, path = source.partition(":")
    files, _ = list_files(kind, Path(path).expanduser(), "")
    return {files.names[number]: decode(data, MAX_PIXELS, strict=False) for number, data in files.read(range(len(files.names)))}


def _shipped_parts() -> dict[str, Image]:
    """Return the enlarged parts of scikit-learn's two photographs by their names."""
    from sklearn.datasets import load_sample_images  # The import is slow, and only this function needs it.

    parts = {}
    for number, photograph in enumerate(load_sample_images().images):
        height, width = (side // PART_SIDE * PART_SIDE for side in photograph.shape[:2])
        for top in range(0, height, PART_SIDE):
            for left in range(0, width, PART_SIDE):
                part = photograph[top : top + PART_SIDE, left : left + PART_SIDE]
                parts[f"photograph {number}, {top}, {left}"] = resize(part, LONGER_SIDE, LONGER_SIDE)
    return parts


def _measure_recalls(originals: list[Image]) -> dict:
    """Return {kind of copy: recall in percent}. Originals that have no fingerprint are left out.

    In the last row, the copies are the original images and the references are cropped.
    """
    originals = [image for image in originals if fingerprint_image(image) is not None]
    index, rng = _make_index(originals), np.random.default_rng(0)
    recall = {kind: _measure_recall(index, [change(image) for image in originals]) for kind, change in COPIES.items()}
    for limit in CROPPED_AT_RANDOM:
        copies = [crop_by(*rng.uniform(0, limit, 4))(image) for image in originals]
        recall[f"cropped by up to {100 * limit:.0f} % at each side"] = _measure_recall(index, copies)
    cropped = _make_index([crop_by(0.05, 0.05, 0.05, 0.05)(image) for image in originals])
    return {"originals": len(originals)} | recall | {"the reference cropped by 5 %": _measure_recall(cropped, originals)}


def _make_index(originals: list[Image]) -> Index:
    """Return an index of the fingerprints of images, without their exact copies."""
    return Index([], list(map(fingerprint_image, originals)))


def _measure_recall(index: Index, copies: list[Image]) -> float:
    """Return the percentage of copies that, encoded as JPEG, are taken for copies of the reference with the same number."""
    fingerprints = [fingerprint_image(decode(encode(copy), MAX_PIXELS)) for copy in copies]
    matches = index.find([b""] * len(copies), fingerprints)
    return round(100 * np.mean([match is not None and match.number == number for number, match in enumerate(matches)]), 1)


def _measure_false_positives(pictures: dict[str, Image]) -> dict:
    """Return how many pairs of different pictures are taken for copies, and which: [distance, name, name]."""
    thumbnails = {name: thumbnail for name, image in pictures.items() if (thumbnail := fingerprint_image(image)) is not None}
    names, stacked = list(thumbnails), np.array(list(thumbnails.values()), np.uint8).reshape(-1, SIDE, SIDE)
    with ThreadPoolExecutor() as pool:
        later, earlier, distance = find_pairs(stacked, PreparationSpec.near_duplicate_correlation, pool)
    pairs = [[float(d), names[i], names[j]] for i, j, d in zip(later, earlier, distance, strict=True)]
    counts = {"pictures": len(pictures), "compared_by_bytes_alone": len(pictures) - len(names)}
    return counts | {"pairs": len(names) * (len(names) - 1) // 2, "taken_for_copies": len(pairs), "which": sorted(pairs)}


def _make_drawings() -> dict[str, Image]:
    """Return mostly flat pictures by their names: letters, logos on white, gradients, and small objects on noisy backgrounds."""
    rng, pictures = np.random.default_rng(0), {}
    for number in range(DRAWINGS):
        pictures[f"letter {number}"] = draw("ABCDEFGHIJKLMNOPQRSTUVWXYZ", rng)
        pictures[f"logo {number}"] = _draw_shapes(np.full((200, 200, 3), 255, np.uint8), rng, 3)
        ramp = np.linspace(*rng.uniform(0, 255, 2), 200)[:, None, None] + rng.normal(0, rng.uniform(0, 8), (200, 200, 3))
        background = np.clip(ramp, 0, 255).astype(np.uint8)
        pictures[f"gradient {number}" if number % 2 else f"object {number}"] = _draw_shapes(background, rng, 1 - number % 2)
    return pictures


def _draw_shapes(image: Image, rng: np.random.Generator, count: int) -> Image:
    """Draw `count` random ellipses and rectangles into an image, and return it."""
    for _ in range(count):
        center, size = tuple(map(int, rng.integers(60, 140, 2))), tuple(map(int, rng.integers(10, 60, 2)))
        color = tuple(map(int, rng.integers(0, 200, 3)))
        if rng.random() < 0.5:
            cv2.ellipse(image, center, size, float(rng.uniform(0, 180)), 0, 360, color, -1)
        else:
            cv2.rectangle(image, center, (center[0] + size[0], center[1] + size[1]), color, -1)
    return image


def _measure_cpu_ms(function: Callable, arguments: list) -> float:
    """Return the mean CPU time of a call of `function` with one of the arguments, in milliseconds."""
    start = time.process_time()
    for argument in arguments:
        function(argument)
    return round(1e3 * (time.process_time() - start) / len(arguments), 3)


def _make_noise(count: int, seed: int) -> np.ndarray:
    """Return noise with the spectrum of photographs, uint8 [count, SIDE, SIDE]: its amplitudes fall as 1 / frequency."""
    frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    weights = 1 / np.maximum(frequencies, 1 / SIDE)
    white = np.random.default_rng(seed).standard_normal((count, SIDE, SIDE), np.float32)
    pink = np.fft.irfft2(np.fft.rfft2(white) * weights)
    pink *= 50 / pink.std(axis=(1, 2), keepdims=True)
    return np.clip(pink + 128, 0, 255).astype(np.uint8)


def _measure_matching(num_images: int, num_references: int) -> dict:
    """Return the CPU time of comparing noise with references. Every tenth reference is planted among the images, mirrored."""
    references, images = _make_noise(num_references, 0), _make_noise(num_images, 1)
    planted = references[::10][: num_images // 2]
    images[: len(planted)] = planted[:, :, ::-1]
    index, start = Index([], list(references)), time.process_time()
    matches = [match for first in range(0, num_images, 2048) for match in index.nearest(images[first : first + 2048])]
    seconds = time.process_time() - start
    num_right = sum(match is not None and match.number == 10 * number for number, match in enumerate(matches[: len(planted)]))
    num_others = sum(match is not None for match in matches) - num_right
    return {"images": num_images, "references": num_references, "cpu_seconds": round(seconds, 1)} | {
        "planted": len(planted), "planted_found": num_right, "others_found": num_others,
    }  # fmt: skip


def _measure_within(num_images: int) -> dict:
    """Return the CPU time of searching noise for copies within it, of which there is one, and an estimate for ImageNet-21k.

    The estimate assumes that the time grows as N^1.5, as that of the search for candidates does. The time of their alignment
    grows only as N once each image has the greatest number of candidates.
    """
    thumbnails = _make_noise(num_images, 0)
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
