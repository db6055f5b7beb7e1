"""Each operation equals a reference: Pillow's operation if Pillow has it, or else its definition in NumPy."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from mixer_jax.config import default_config
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.images.randaugment import OPERATIONS, Strength, randaugment
from mixer_jax.data.sources.digits import DigitsSource

MAGNITUDES = (0, 1, 2, 5, 8, 10, 15, 20)  # Table 4 has 10, 15 and 20
PHOTOGRAPHS = tuple(cv2.resize(image, (192, 160), interpolation=cv2.INTER_AREA) for image in load_sample_images().images)
PILLOWS = Strength(0, scale=1.0, wraps=False)
OPTIONS = {"solarize": "wrapped", "lengths": "shares"}


class Recorder(np.random.Generator):
    """A generator that records the numbers that it draws from [0, 1)."""

    def __init__(self, seed: int):
        super().__init__(np.random.PCG64(seed))
        self.drawn: list[float] = []

    def random(self, *arguments):
        numbers = super().random(*arguments)
        self.drawn += np.atleast_1d(numbers).tolist()
        return numbers


# References: (image, magnitude m, numbers drawn) -> image. The meaning of m is transcribed from section 3.2 of the authors' code.


def pillow(operation: Callable[[Image.Image, float], Image.Image]) -> Callable:
    return lambda image, m, drawn: np.asarray(operation(Image.fromarray(image), m))


def enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable:
    return pillow(lambda image, m: kind(image).enhance(1.8 * m / 10 + 0.1))


def solarize_add(image: np.ndarray, m: float, drawn: list[float]) -> np.ndarray:
    bright = np.minimum(image.astype(int) + int(110 * m / 10), 255)
    return np.where(image < 128, bright, image)


def cutout(image: np.ndarray, m: float, drawn: list[float]) -> np.ndarray:
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    from_y, from_x = y - math.floor(drawn[0] * height), x - math.floor(drawn[1] * width)
    half = int(40 * m / 10)
    inside = (from_y >= -half) & (from_y < half) & (from_x >= -half) & (from_x < half)
    return np.where(inside[..., None], 128, image)


def moved(source_of: Callable) -> Callable:
    """Return the reference that takes the pixel nearest to `source_of` of each position, and gray outside the image."""

    def reference(image: np.ndarray, m: float, drawn: list[float]) -> np.ndarray:
        height, width = image.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float64)
        sign = 1 if drawn[0] < 0.5 else -1
        sources = source_of(x, y, sign * m / 10, image)
        column, row = (np.floor(np.round(source, 9) + 0.5).astype(int) for source in sources)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        result = np.full_like(image, 128)
        result[inside] = image[row[inside], column[inside]]
        return result

    return reference


def turned(x, y, share, image):
    """Rotate about the center by 30 degrees times the share. Positions are complex numbers."""
    center = (image.shape[1] - 1 + 1j * (image.shape[0] - 1)) / 2
    source = center + np.exp(1j * np.radians(30 * share)) * (x + 1j * y - center)
    return source.real, source.imag


# {operation: function}. The function takes (x, y of the result, m / 10 with its sign, image) and returns x, y in the image. The
# upper left pixel is (0, 0).
MOVES = {
    "Rotate": turned,
    "ShearX": lambda x, y, share, image: (x + 0.3 * share * y, y),
    "ShearY": lambda x, y, share, image: (x, y + 0.3 * share * x),
    "TranslateX": lambda x, y, share, image: (x + 100 * share, y),
    "TranslateY": lambda x, y, share, image: (x, y + 100 * share),
}
REFERENCES = {
    "AutoContrast": pillow(lambda image, m: ImageOps.autocontrast(image)),
    "Equalize": pillow(lambda image, m: ImageOps.equalize(image)),
    "Invert": pillow(lambda image, m: ImageOps.invert(image)),
    "Posterize": pillow(lambda image, m: ImageOps.posterize(image, min(max(int(4 * m / 10), 1), 8))),
    "Solarize": pillow(lambda image, m: ImageOps.solarize(image, int(256 * m / 10))),
    "Color": enhance(ImageEnhance.Color),
    "Contrast": enhance(ImageEnhance.Contrast),
    "Brightness": enhance(ImageEnhance.Brightness),
    "Sharpness": enhance(ImageEnhance.Sharpness),
    "Cutout": cutout,
    "SolarizeAdd": solarize_add,
} | {name: moved(source_of) for name, source_of in MOVES.items()}
MULTIPLY = ("AutoContrast", "Color", "Contrast", "Brightness", "Sharpness")
FLAT = np.broadcast_to(np.uint8([0, 77, 255]), (20, 30, 3))
TWO_LEVELS = np.where(np.arange(600).reshape(20, 30, 1) % 7 > 2, np.uint8([3, 77, 255]), np.uint8([4, 200, 0]))
NOISE = np.random.default_rng(0).integers(0, 256, (31, 33, 3), np.uint8)


def run(
    name: str, image: np.ndarray, magnitude: float, seed: int, strength: Strength = PILLOWS
) -> tuple[np.ndarray, list[float]]:
    """Return the result of the operation and the numbers that it drew. Lengths are in pixels, and Solarize is Pillow's."""
    operation, arguments = OPERATIONS[name]
    rng = Recorder(seed)
    return operation(image, *arguments(strength._replace(magnitude=magnitude), rng)), rng.drawn


def test_they_are_the_sixteen_of_the_authors_code():
    assert len(OPERATIONS) == 16
    assert set(OPERATIONS) == set(REFERENCES)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_its_reference_everywhere_within_one_level_where_a_factor_is_multiplied(name: str):
    tolerance = 1 if name in MULTIPLY else 0
    for magnitude in MAGNITUDES:
        for image in (*PHOTOGRAPHS, FLAT, TWO_LEVELS, NOISE):
            for seed in range(4):  # The seeds give each sign twice, and four positions.
                seen, drawn = run(name, image, magnitude, seed)
                expected = REFERENCES[name](image, magnitude, drawn)
                assert np.abs(seen.astype(int) - expected).max() <= tolerance, f"m = {magnitude}, seed {seed}"
                if not drawn:
                    break


@pytest.mark.parametrize("name", MOVES)
def test_pixels_move_as_pillow_moves_them_but_where_its_fixed_point_may_take_the_neighbor(name: str):
    """Pillow computes positions in steps of 1 / 65536, so a position halfway between two pixels may be rounded either way.

    Such positions are whole lines of the shears (every tenth pixel at m = 10, every twentieth at 5 and 15) and one in fifty of
    a rotation's. Pillow's coordinates count from the corners of pixels, so halves are subtracted and added.
    """
    for magnitude in MAGNITUDES:
        for seed in range(4):
            image = PHOTOGRAPHS[seed % 2]
            seen, drawn = run(name, image, magnitude, seed)
            share = magnitude / 10 * (1 if drawn[0] < 0.5 else -1)

            def source_of(x, y, share=share, image=image):
                return np.array(MOVES[name](x - 0.5, y - 0.5, share, image)) + 0.5

            shift = source_of(0, 0)
            matrix = np.stack([source_of(1, 0) - shift, source_of(0, 1) - shift, shift], -1)
            size, gray = image.shape[1::-1], (128, 128, 128)
            expected = Image.fromarray(image).transform(
                size, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.NEAREST, fillcolor=gray
            )
            y, x = np.mgrid[: size[1], : size[0]] + 0.5
            from_halfway = np.abs((source_of(x, y) + 0.5) % 1 - 0.5).min(axis=0)
            certain = from_halfway > 0.005
            np.testing.assert_array_equal(seen[certain], np.asarray(expected)[certain])
            assert certain.mean() > 0.89


@pytest.mark.parametrize(("magnitude", "threshold"), [(0, 0), (1, 25), (5, 128), (8, 204), (10, 0), (15, 128), (20, 0)])
def test_solarizes_threshold_wraps_around_in_uint8_as_in_the_authors_code_or_is_clipped(magnitude: float, threshold: int):
    wrapped, _ = run("Solarize", NOISE, magnitude, 0, PILLOWS._replace(wraps=True))
    np.testing.assert_array_equal(wrapped, np.where(threshold <= NOISE, 255 - NOISE, NOISE))
    clipped, _ = run("Solarize", NOISE, magnitude, 0)
    np.testing.assert_array_equal(clipped, wrapped if magnitude < 10 else NOISE)


class Middle(np.random.Generator):
    """A generator that always draws one half from [0, 1)."""

    def random(self, *arguments):
        return np.full(arguments, 0.5) if arguments else 0.5


def length_of(name: str, size: int, magnitude: float, lengths: str, monkeypatch) -> int:
    """Return the number of columns (for TranslateY, rows) of an image that an operation makes gray."""
    monkeypatch.setattr("mixer_jax.data.images.randaugment.ROWS", (OPERATIONS[name],) * len(OPERATIONS))
    seen = randaugment(
        np.zeros((size, size, 3), np.uint8), Middle(np.random.PCG64(0)), 1, magnitude, solarize="wrapped", lengths=lengths
    )
    return int((seen[..., 0] == 128).any(axis=1 if name == "TranslateY" else 0).sum())


@pytest.mark.parametrize("magnitude", [2, 10, 15, 20])
@pytest.mark.parametrize(("name", "at_10"), [("TranslateX", 100), ("TranslateY", 100), ("Cutout", 80)])
def test_a_length_is_the_share_of_the_side_that_it_is_at_224_pixels_or_as_many_pixels(name, at_10, magnitude, monkeypatch):
    pixels = at_10 * magnitude // 10
    for size in (20, 32, 64, 112, 224, 448):
        share = length_of(name, size, magnitude, "shares", monkeypatch)
        assert share == pytest.approx(pixels * size / 224, abs=2 if size != 224 else 0)
        assert length_of(name, size, magnitude, "pixels", monkeypatch) == min(pixels, size)


@pytest.mark.parametrize("solarize", ["wrapped", "clipped"])
@pytest.mark.parametrize("layers_and_magnitude", [(2, 10), (2, 15), (2, 20)])
def test_at_224_pixels_lengths_as_shares_change_nothing(layers_and_magnitude: tuple[int, int], solarize: str):
    image = cv2.resize(PHOTOGRAPHS[0], (224, 224))
    for seed in range(60):
        seen, expected = (
            randaugment(image, np.random.default_rng(seed), *layers_and_magnitude, solarize=solarize, lengths=lengths)
            for lengths in ("shares", "pixels")
        )
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(("lengths", "least", "most"), [("shares", 0, 0.02), ("pixels", 0.3, 0.4)])
@pytest.mark.parametrize("magnitude", [10, 15])
def test_hardly_any_small_image_becomes_one_flat_color(magnitude: int, lengths: str, least: float, most: float):
    """With lengths in pixels, a third of real digits of 32 x 32 pixels do, at the recipes' two layers."""
    augment, source = default_config().augment, DigitsSource("train")
    augment.update(crop="resize", flip=False, randaugment_layers=2, randaugment_magnitude=magnitude, randaugment_lengths=lengths)
    transform = train_transform(augment, 32)
    seen = [transform(source[i].image, np.random.default_rng(i)) for i in range(1000)]
    assert least <= np.mean([image.min() == image.max() for image in seen]) <= most


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (224, 224)])
def test_an_operation_gives_a_new_image_of_the_same_kind_and_leaves_its_input_alone(name: str, size: tuple[int, int]):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image.flags.writeable = False  # A decoder may return such an array.
    for magnitude in MAGNITUDES:
        seen, _ = run(name, image, magnitude, 0)
        assert (seen.shape, seen.dtype, seen.flags.c_contiguous) == (image.shape, np.uint8, True)
        assert not np.shares_memory(seen, image)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_part_of_a_larger_image_is_treated_as_an_image(name: str):
    large = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for part in (large[5:25, 10:40], large[:, ::-1]):
        expected, _ = run(name, np.ascontiguousarray(part), 15, 3)
        np.testing.assert_array_equal(run(name, part, 15, 3)[0], expected)


@pytest.mark.parametrize("name", MOVES)
def test_both_directions_are_equally_likely(name: str):
    _, arguments = OPERATIONS[name]
    rng = np.random.default_rng(0)
    strengths = [arguments(PILLOWS._replace(magnitude=15), rng)[0] for _ in range(2000)]
    assert len(set(strengths)) == 2 and sum(strengths) == pytest.approx(0, abs=0.05 * sum(map(abs, strengths)))


def test_the_cut_out_square_is_centerd_anywhere_with_equal_chance():
    image = np.zeros((12, 20, 3), np.uint8)
    centers = np.zeros((12, 20), int)
    rng = np.random.default_rng(0)
    for _ in range(4800):
        _, arguments = OPERATIONS["Cutout"]
        half, y, x = arguments(PILLOWS._replace(magnitude=0.25), rng)
        seen = OPERATIONS["Cutout"][0](image, half, y, x)
        row, column = np.argwhere(seen[..., 0] == 128).max(axis=0)  # The side is 2 pixels, and the center is the second one.
        centers[row, column] += 1
    assert half == 1 and centers.sum() == 4800
    assert ((centers - 20) ** 2 / 20).sum() < 290  # chi-square with 239 degrees of freedom exceeds this with 1 %


def test_each_operation_is_drawn_with_equal_chance_in_each_layer(monkeypatch):
    calls: list[str] = []

    def recorded(name: str) -> tuple[Callable, Callable]:
        return lambda image: calls.append(name) or image, lambda strength, rng: ()

    monkeypatch.setattr("mixer_jax.data.images.randaugment.ROWS", tuple(recorded(name) for name in OPERATIONS))
    rng = np.random.default_rng(0)
    for _ in range(8000):
        randaugment(NOISE, rng, 2, 15, **OPTIONS)
    for layer in (calls[::2], calls[1::2]):
        counts = np.array([layer.count(name) for name in OPERATIONS])
        assert counts.sum() == 8000
        assert ((counts - 500) ** 2 / 500).sum() < 30.6  # chi-square with 15 degrees of freedom exceeds this with 1 %
    pairs = np.unique([f"{first} {second}" for first, second in zip(calls[::2], calls[1::2], strict=True)], return_counts=True)[1]
    assert len(pairs) == 256  # An operation may also follow itself.
    assert ((pairs - 31.25) ** 2 / 31.25).sum() < 310  # chi-square with 255 degrees of freedom exceeds this with 1 %


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_result_is_that_many_operations_one_after_the_other_and_depends_on_the_generator_alone(layers: int):
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    results = [randaugment(PHOTOGRAPHS[0], rng, layers, 15, **OPTIONS) for _ in range(30)]
    expected = []
    for _ in range(30):
        image = PHOTOGRAPHS[0]
        for drawn in again.integers(16, size=layers):
            operation, arguments = list(OPERATIONS.values())[drawn]
            image = operation(image, *arguments(Strength(15, 160 / 224, wraps=True), again))
        expected.append(image)
    np.testing.assert_array_equal(results, expected)
    assert len({result.tobytes() for result in results}) > 10


def test_no_layers_leave_the_image_as_it_is():
    assert randaugment(NOISE, np.random.default_rng(0), 0, 15, **OPTIONS) is NOISE
