"""The part of an image that the model sees in training and in evaluation."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.data.images.augment import eval_transform, inception_crop, random_crop, train_transform
from mixer_jax.data.images.randaugment import randaugment
from mixer_jax.data.images.resize import resize, resize_small
from mixer_jax.errors import UserError


def coordinates(height: int, width: int) -> np.ndarray:
    """Return an image of at most 256 x 256 pixels whose pixels hold their own y and x."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)


def augment_config(**changes) -> ConfigDict:
    config = default_config().augment
    config.update(changes)
    return config


def crops(height: int, width: int, draws: int, area: float, aspects: tuple[float, float]) -> np.ndarray:
    """Return the top, left, height and width of random crops, [draws, 4]."""
    image, rng = coordinates(height, width), np.random.default_rng(0)
    parts = [inception_crop(image, rng, area, *aspects) for _ in range(draws)]
    for part in parts:
        top, left, _ = part[0, 0]
        np.testing.assert_array_equal(part, image[top : top + len(part), left : left + part.shape[1]])
    return np.array([(*part[0, 0, :2], *part.shape[:2]) for part in parts])


@pytest.mark.parametrize("size", [(200, 200), (100, 250), (250, 90), (30, 40), (8, 8)])
@pytest.mark.parametrize(("area", "aspects"), [(0.05, (3 / 4, 4 / 3)), (0.5, (1.0, 1.0)), (0.3, (0.5, 0.8))])
def test_a_crop_keeps_the_least_area_and_an_aspect_in_range_within_the_rounding_to_pixels(size, area, aspects):
    _, _, height, width = crops(*size, 300, area, aspects).T
    whole = (height == size[0]) & (width == size[1])
    assert np.all(height * width >= area * size[0] * size[1])
    assert np.all(whole | (width >= height * aspects[0] - 0.5))
    assert np.all(whole | (width <= height * aspects[1] + 0.5))


def expected_crops(height: int, width: int, area: float, aspects: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return areas (as shares) and aspects of crops with their weights, integrated on a grid without rounding to pixels.

    The aspect is uniform. The height is uniform between that of the least area and the largest that fits. An aspect for which
    there is no such height is drawn again.
    """
    aspect = np.linspace(*aspects, 1001)[:, None]
    lowest = np.sqrt(area * height * width / aspect)
    highest = np.minimum(height, width / aspect)
    tall = lowest + (np.arange(1000) + 0.5) / 1000 * (highest - lowest)
    weight = np.broadcast_to(lowest <= highest, tall.shape).ravel().astype(float)
    share = tall**2 * aspect / (height * width)
    return {"area": share.ravel(), "aspect": np.broadcast_to(aspect, tall.shape).ravel(), "weight": weight / weight.sum()}


@pytest.mark.parametrize(
    ("size", "area", "aspects"),
    [
        ((200, 200), 0.05, (0.75, 1.33)),  # the options of the configs
        ((150, 200), 0.05, (0.75, 1.33)),
        ((250, 120), 0.05, (0.75, 1.33)),
        ((240, 240), 0.05, (1, 4)),
        ((240, 250), 0.6, (0.5, 3)),  # Some aspects do not fit.
    ],
)
def test_area_and_aspect_of_crops_are_distributed_as_defined(size, area, aspects):
    """The Kolmogorov-Smirnov distance of 4000 draws is small. Rounding to pixels adds about half a percent to it."""
    expected = expected_crops(*size, area, aspects)
    _, _, h, w = crops(*size, 4000, area, aspects).T
    for name, drawn in (("area", h * w / np.prod(size)), ("aspect", w / h)):
        order = np.argsort(expected[name])
        below = np.interp(np.sort(drawn), expected[name][order], np.cumsum(expected["weight"][order]))
        distance = np.abs(below - (np.arange(len(drawn)) + 0.5) / len(drawn)).max()
        assert distance < 0.035, name


def test_crops_lie_anywhere_in_the_image_with_equal_chance():
    top, left, height, width = crops(60, 90, 4000, 0.05, (3 / 4, 4 / 3)).T
    for start, room in ((top, 60 - height), (left, 90 - width)):
        places = start[room > 5] / room[room > 5]
        assert np.histogram(places, bins=4, range=(0, 1))[0] / len(places) == pytest.approx([0.25] * 4, abs=0.04)
        assert (places.min(), places.max()) == (0, 1)


def test_where_no_crop_fits_the_whole_image_is_taken():
    image = coordinates(200, 10)
    assert inception_crop(image, np.random.default_rng(0), 0.5, 3 / 4, 4 / 3).shape == image.shape


@pytest.mark.parametrize(
    ("changes", "fewest", "most"),
    [({}, 20, 20), ({"crop": "resize"}, 2, 2), ({"crop": "random"}, 10, 18), ({"flip": False}, 20, 20)],
)
def test_a_training_image_depends_on_its_generator_alone(changes, fewest, most):
    transform, image = train_transform(augment_config(**changes), 16), coordinates(40, 60)
    results = [transform(image, np.random.default_rng(seed)) for seed in (0, 0, *range(1, 20))]
    assert {(x.shape, x.dtype.name) for x in results} == {((16, 16, 3), "uint8")}
    np.testing.assert_array_equal(results[0], results[1])
    assert fewest <= len({x.tobytes() for x in results}) <= most
    np.testing.assert_array_equal(image, coordinates(40, 60))


def test_half_of_the_images_are_flipped_left_to_right():
    transform, image, rng = train_transform(augment_config(crop="resize"), 16), coordinates(16, 16), np.random.default_rng(0)
    flipped = 0
    for _ in range(1000):
        seen = transform(image, rng)
        if not np.array_equal(seen, image):
            np.testing.assert_array_equal(seen, image[:, ::-1])
            flipped += 1
    assert flipped == pytest.approx(500, abs=50)


def test_without_crop_and_flip_training_sees_the_resized_image():
    image = coordinates(40, 60)
    seen = train_transform(augment_config(crop="resize", flip=False), 16)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(seen, resize(image, 16, 16))


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("solarize", "lengths"), [("wrapped", "shares"), ("clipped", "pixels")])
@pytest.mark.parametrize("crop", ["inception", "random", "resize"])
def test_training_crops_then_flips_then_applies_randaugment(crop: str, solarize: str, lengths: str, flip: bool):
    image, size = coordinates(90, 120), 48
    plain = train_transform(augment_config(crop=crop, flip=flip), size)
    options = {"randaugment_solarize": solarize, "randaugment_lengths": lengths}
    whole = train_transform(augment_config(crop=crop, flip=flip, randaugment_layers=2, randaugment_magnitude=15, **options), size)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cropped = plain(image, rng)
        expected = randaugment(cropped, rng, 2, 15, solarize=solarize, lengths=lengths)  # The same generator goes on.
        np.testing.assert_array_equal(whole(image, np.random.default_rng(seed)), expected)


@pytest.mark.parametrize(
    ("kind", "resize_size", "resized"),
    [("square", 0, (64, 64)), ("square", 70, (70, 70)), ("small", 0, (64, 96)), ("small", 70, (70, 105))],
)
def test_a_random_crop_is_a_square_of_the_resized_image(kind: str, resize_size: int, resized: tuple[int, int]):
    image = coordinates(80, 120)
    transform = train_transform(augment_config(crop="random", flip=False, resize=kind, resize_size=resize_size), 56)
    large = resize_small(image, resized[0]) if kind == "small" else resize(image, *resized)
    assert large.shape == (*resized, 3)
    windows = np.lib.stride_tricks.sliding_window_view(large, (56, 56, 3))
    found = {window.tobytes() for window in windows.reshape(-1, 56, 56, 3)}
    assert {transform(image, np.random.default_rng(seed)).tobytes() for seed in range(50)} <= found


@pytest.mark.parametrize("size", [(10, 10), (10, 14), (13, 10), (12, 15)])
def test_a_random_crop_lies_anywhere_with_equal_chance(size: tuple[int, int]):
    image, rng = coordinates(*size), np.random.default_rng(0)
    places = np.zeros((size[0] - 9, size[1] - 9), int)
    for _ in range(200 * places.size):
        part = random_crop(image, rng, 10)
        assert part.shape == (10, 10, 3)
        places[tuple(part[0, 0, :2])] += 1
    freedom = places.size - 1
    assert ((places - 200) ** 2 / 200).sum() <= freedom + 3 * (2 * freedom) ** 0.5  # chi-square, three deviations


def test_a_random_crop_larger_than_what_was_resized_is_refused():
    with pytest.raises(UserError, match=r"resize_size is 223.*image_size=224"):
        train_transform(augment_config(crop="random", resize_size=223), 224)


@pytest.mark.parametrize(
    ("resize", "resize_size", "height", "width", "y", "x"),
    [  # y and x are the first and the last row and column of the original that are seen.
        ("small", 80, 80, 120, (8, 71), (28, 91)),
        ("small", 64, 64, 200, (0, 63), (68, 131)),
        ("small", 64, 128, 128, (0, 127), (0, 127)),
        ("square", 80, 80, 120, (8, 71), (12, 107)),
        ("square", 64, 64, 192, (0, 63), (0, 191)),
        ("small", 0, 73, 73, (4, 67), (4, 67)),  # The resized side is 64 x 256 / 224 = 73.
    ],
)
def test_evaluation_sees_the_central_square_of_the_resized_image(resize, resize_size, height, width, y, x):
    image, rng = coordinates(height, width), np.random.default_rng(0)
    seen = eval_transform(resize, resize_size, 64)(image, rng).astype(int)
    assert (seen.shape, rng.bit_generator.state) == ((64, 64, 3), np.random.default_rng(0).bit_generator.state)
    corners = [*seen[[0, -1], 0, 0], *seen[0, [0, -1], 1]]
    np.testing.assert_allclose(corners, [*y, *x], atol=1.01)


def test_an_image_smaller_than_what_is_seen_is_enlarged_for_evaluation():
    assert eval_transform("small", 0, 32)(coordinates(8, 10), np.random.default_rng(0)).shape == (32, 32, 3)


def test_cutting_out_more_than_was_resized_is_refused():
    with pytest.raises(UserError, match=r"resize_size is 223.*image_size=224"):
        eval_transform("small", 223, 224)


@pytest.mark.parametrize("shape", [(40, 60, 3), (8, 8, 3), (100, 20, 3)])
def test_a_whole_image_is_seen_to_its_edges_at_any_size(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    seen = eval_transform("whole", 0, 16)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(seen, resize(image, 16, 16))
