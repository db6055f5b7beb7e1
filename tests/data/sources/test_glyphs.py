"""glyphs: a pure function of seed, split and number; every class drawn, and legible enough to be told apart."""

import threading

import numpy as np
import pytest

from mixer_jax.data.sources.glyph_drawing import IMAGE_SIZE
from mixer_jax.data.sources.glyphs import CLASS_NAMES, DIGIT_TURNS, TURNS, GlyphsSource
from mixer_jax.errors import UserError


def test_an_image_depends_on_seed_split_and_number_alone():
    image, labels, _ = GlyphsSource("train", 100)[7]
    again, same_labels, _ = GlyphsSource("train", 5000)[7]
    assert labels == same_labels
    np.testing.assert_array_equal(image, again)
    for other in (
        GlyphsSource("train", 100)[7 + len(TURNS)],
        GlyphsSource("validation", 100)[7],
        GlyphsSource("train", 100, seed=1)[7],
    ):
        assert other.labels == labels and not np.array_equal(other.image, image)


def test_images_are_colour_images_of_one_size():
    glyphs = GlyphsSource("validation", 50)
    assert len(glyphs) == 50
    for i in range(50):
        image = glyphs[i].image
        assert image.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) and image.dtype == np.uint8


def test_every_class_comes_in_each_round_and_digits_more_often():
    glyphs = GlyphsSource("train", 2 * len(TURNS))
    labels = [glyphs.labels(i)[0] for i in range(len(glyphs))]
    counts = np.bincount(labels, minlength=len(CLASS_NAMES))
    assert all(counts == [2 * (DIGIT_TURNS if name[0].isdigit() else 1) for name in CLASS_NAMES])
    assert labels == [glyphs[i].labels[0] for i in range(len(glyphs))]


def test_every_image_has_ink_and_paper():
    glyphs = GlyphsSource("train", 200)
    assert all(np.ptp(glyphs[i].image.mean(axis=-1)) > 30 for i in range(200))


def test_images_of_a_class_are_nearer_to_each_other_than_to_those_of_others():
    glyphs = GlyphsSource("train", 40 * len(TURNS))
    numbers = {name: [i for i in range(len(glyphs)) if CLASS_NAMES[glyphs.labels(i)[0]] == name][:150] for name in ("1", "0Oo")}

    def strokes(i: int) -> np.ndarray:
        grey = glyphs[i].image.mean(axis=-1)
        return np.abs(grey - np.median(grey[[0, -1]])).ravel()  # the distance from the paper's level: light or dark ink

    means = {name: np.mean([strokes(i) for i in chosen[:100]], axis=0) for name, chosen in numbers.items()}
    right = [
        min(means, key=lambda other, i=i: np.linalg.norm(strokes(i) - means[other])) == name
        for name, chosen in numbers.items()
        for i in chosen[100:]
    ]
    assert np.mean(right) > 0.75


def test_threads_draw_the_same_images():
    glyphs = GlyphsSource("train", 64)
    expected = [glyphs[i].image for i in range(64)]
    drawn: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda k=k: drawn.update({i: glyphs[i].image for i in range(k, 64, 4)})) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(drawn[i], expected[i]) for i in range(64))


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="train, validation"):
        GlyphsSource("test", 10)
    with pytest.raises(UserError, match="at least 1"):
        GlyphsSource("train", 0)
    for i in (-1, 10):
        with pytest.raises(IndexError):
            GlyphsSource("train", 10)[i]
