"""Which part of an image is seen in training and in evaluation."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from mixer_jax.config import UserError, default_config
from mixer_jax.data import images
from mixer_jax.data.augment import eval_transform, inception_crop, train_transform


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: y and x, by value (up to 256 x 256)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)


def augment_config(**changes) -> ConfigDict:
    config = default_config().augment
    config.update(changes)
    return config


def crops(height: int, width: int, draws: int, area: float, aspects: tuple[float, float]) -> np.ndarray:
    """[draws, 4]: top, left, height and width of random crops."""
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


def test_aspect_and_height_of_crops_are_uniform_where_they_may_be():
    """Means over draws against those of the definition, integrated on a grid: a square image of side 1."""
    aspect = np.linspace(1, 4, 1001)
    lowest, highest = np.sqrt(0.05 / aspect), np.minimum(1, 1 / aspect)
    height = np.linspace(lowest, highest, 1001)  # uniform, for each aspect
    expected = {"aspect": aspect.mean(), "height": height.mean(), "width": (height * aspect).mean()}
    expected |= {"area": (height**2 * aspect).mean(), "small": (height**2 * aspect < 0.15).mean()}

    _, _, h, w = crops(240, 240, 8000, 0.05, (1, 4)).T / 240
    actual = {"aspect": (w / h).mean(), "height": h.mean(), "width": w.mean(), "area": (h * w).mean()}
    actual |= {"small": (h * w < 0.15).mean()}
    assert actual == pytest.approx(expected, rel=0.025)


def test_crops_lie_anywhere_in_the_image_with_equal_chance():
    top, left, height, width = crops(60, 90, 4000, 0.05, (3 / 4, 4 / 3)).T
    for start, room in ((top, 60 - height), (left, 90 - width)):
        places = start[room > 5] / room[room > 5]
        assert np.histogram(places, bins=4, range=(0, 1))[0] / len(places) == pytest.approx([0.25] * 4, abs=0.04)
        assert (places.min(), places.max()) == (0, 1)


def test_where_no_crop_fits_the_whole_image_is_taken():
    image = coordinates(200, 10)
    assert inception_crop(image, np.random.default_rng(0), 0.5, 3 / 4, 4 / 3) is image


@pytest.mark.parametrize("changes", [{}, {"crop": "resize"}, {"flip": False}])
def test_a_training_image_depends_on_its_generator_alone(changes):
    transform, image = train_transform(augment_config(**changes), 16), coordinates(40, 60)
    results = [transform(image, np.random.default_rng(seed)) for seed in (0, 0, *range(1, 20))]
    assert {(x.shape, x.dtype.name) for x in results} == {((16, 16, 3), "uint8")}
    np.testing.assert_array_equal(results[0], results[1])
    assert len({x.tobytes() for x in results}) == (2 if changes == {"crop": "resize"} else 20)
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
    np.testing.assert_array_equal(seen, images.resize(image, 16, 16))


def test_randaugment_is_refused_as_long_as_it_is_not_built():
    with pytest.raises(UserError, match=r"RandAugment\(2, 15\).*--config\.augment\.randaugment_layers=0"):
        train_transform(augment_config(randaugment_layers=2, randaugment_magnitude=15), 224)


@pytest.mark.parametrize(
    ("resize", "resize_size", "height", "width", "y", "x"),
    [  # the first and last row and column of the original that are seen
        ("small", 80, 80, 120, (8, 71), (28, 91)),
        ("small", 64, 64, 200, (0, 63), (68, 131)),
        ("small", 64, 128, 128, (0, 127), (0, 127)),
        ("square", 80, 80, 120, (8, 71), (12, 107)),
        ("square", 64, 64, 192, (0, 63), (0, 191)),
        ("small", 0, 73, 73, (4, 67), (4, 67)),  # 64 x 256 / 224 is 73
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
