import numpy as np
from tiny_config import loader_config

from mixer_jax.checkpoints.weights import load_weights
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.pages.pictures import image_uri
from mixer_jax.report.runs import read_run
from mixer_jax.report.samples import pair_units, spatial_frequency, token_mixing_units, training_images


def wave(cycles, phase=0.0, side=8):
    return np.cos(2 * np.pi * cycles * np.arange(side) / side + phase)[:, None] * np.ones(side)


def test_training_images_are_the_first_rows_of_the_runs_own_first_batch(run_folder):
    run = read_run(run_folder)
    source = open_source(run.config.data)
    transform = train_transform(run.config.augment, run.config.image_size)
    options = {"steps": range(3), "unreadable": UnreadableImages()}
    batch = next(train_batches(source, transform, loader_config(), seed=0, batch_size=16, batch_indices=np.arange(16), **options))
    pictures = training_images(run, 5)
    assert len(pictures) == 5 and len(training_images(run, 99)) == 16
    assert [picture.uri for picture in pictures] == [image_uri(image) for image in batch["image"][:5]]
    assert [picture.caption[0] for picture in pictures] == [str(label) for label in batch["labels"][:5, 0]]


def test_units_are_the_columns_of_the_first_token_mixing_kernel(whole_run):
    units = token_mixing_units(read_run(whole_run))
    kernel = load_weights(str(whole_run)).arrays["MixerBlock_0/token_mixing/Dense_0/kernel"]
    assert units.shape == (6, 4, 4)
    np.testing.assert_array_equal(units[2], [kernel[row : row + 4, 2] for row in (0, 4, 8, 12)])


def test_frequency_rises_with_cycles_and_does_not_depend_on_scale_or_phase():
    frequencies = spatial_frequency(np.stack([wave(cycles) for cycles in range(5)]))
    np.testing.assert_allclose(frequencies, np.arange(5) / 8, atol=1e-12)
    np.testing.assert_allclose(spatial_frequency(np.stack([wave(2), -3 * wave(2), wave(2, 0.7)])), 2 / 8)
    assert spatial_frequency(np.zeros((1, 8, 8))) == 0


def test_units_go_from_low_to_high_frequency_each_with_its_inverse():
    units = np.stack([wave(3), wave(1), -2 * wave(3), -wave(0), 5 * wave(0), -wave(1, 0.1)])
    pairs = pair_units(units)
    assert [set(pair) for pair in pairs] == [{3, 4}, {1, 5}, {0, 2}]


def test_an_odd_unit_stays_alone_and_none_is_lost():
    rng = np.random.default_rng(0)
    pairs = pair_units(np.concatenate([rng.normal(size=(6, 4, 4)), np.zeros((1, 4, 4))]))
    assert sorted(i for pair in pairs for i in pair) == list(range(7)) and [len(pair) for pair in pairs] == [2, 2, 2, 1]
